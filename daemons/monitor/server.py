"""The monitor: looks at every worker's health from outside, ends what is overdue, and counts what happens."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from daemons.errors import Unavailable
from daemons.monitor import probe
from daemons.monitor.metrics import RegistryMetrics
from daemons.registry import Registry, Snapshot, WorkerRecord, WorkerState
from daemons.wire import CALL_ROLES

log = logging.getLogger(__name__)

REAP_S = 1.0
PROBE_S = 2.0
PROBES_AT_ONCE = 256  # sockets
REPORTS_AT_ONCE = 16  # connections to Redis
WARN_EVERY = 30  # passes: a registry that is away for long is not news each second
EVENTS_PAGE, EVENT_PAGES = 1000, 20  # of the audit log in one pass; it keeps about 10,000 lines
CANCEL_AGAIN_S = 0.1
NOT_PROBED = (WorkerState.GONE, WorkerState.EXPECTED)


class Monitor:
    """A service of the runtime. A second one beside it does no harm, and what one forgets at its end is its counters.

    Probes of two monitors add up: a worker that does not answer is then UNHEALTHY after half the time.
    """

    role = "monitor"
    slots = 0
    direct_slots = 0

    def __init__(self, registry: Registry, metrics: CollectorRegistry, roles: Iterable[str] = CALL_ROLES) -> None:
        """`roles`: what a call needs."""
        self._registry = registry
        self._shown = RegistryMetrics(metrics, roles)
        self._audit_log = AuditLog(registry, self._shown)
        self._probes = Counter(
            "callbox_probes_total", "Looks at workers' health, by what was seen", ["role", "result"], registry=metrics
        )
        self._failed = Counter(
            "callbox_monitor_failures_total", "Passes of the monitor that ended early", ["pass"], registry=metrics
        )
        for name in ("probe", "reap"):
            self._failed.labels(name)
        self._http = probe.session()
        self._probing = asyncio.Semaphore(PROBES_AT_ONCE)
        self._reporting = asyncio.Semaphore(REPORTS_AT_ONCE)
        self._loops: set[asyncio.Task[None]] = set()

    async def load(self) -> str:
        self._loops = {
            asyncio.create_task(self._each(PROBE_S, "probe", self.probe_all)),
            asyncio.create_task(self._each(REAP_S, "reap", self.reap)),
        }
        return ""

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return ()

    async def drain(self) -> None:
        """There is nothing to wait for."""

    async def close(self) -> None:
        pending = self._loops
        while pending:  # redis-py waits by `wait_for`, which before Python 3.12 can lose a cancel
            for loop in pending:
                loop.cancel()
            _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
        await self._http.close()

    async def probe_all(self) -> None:
        """Look at every worker at once, and tell the registry what was seen."""
        workers = (await self._registry.snapshot()).workers
        looks = (self._probe(worker) for worker in workers if worker.state not in NOT_PROBED)
        for outcome in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def reap(self) -> None:
        """End what is overdue, then export how the registry stands and what has happened."""
        await self._registry.reap()
        snapshot = await self._registry.snapshot()
        await self._audit_log.read(snapshot)
        self._shown.show(snapshot)

    async def _probe(self, worker: WorkerRecord) -> None:
        async with self._probing:
            problem = await probe.problem_of(self._http, worker)
        good, bad = (self._probes.labels(worker.role, result) for result in ("good", "bad"))
        (good if problem is None else bad).inc()
        async with self._reporting:
            probed = await self._registry.probe(worker.worker, worker.boot, ok=problem is None)
        if problem is not None and worker.state is not WorkerState.UNHEALTHY:
            log.warning("%s (%s) is not well: %s; it is %s", worker.worker, worker.role, problem, probed.state)

    async def _each(self, period_s: float, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Run `step` each `period_s`, whatever becomes of it; one that takes longer is followed by the next at once."""
        failures = 0
        while True:
            started = time.monotonic()
            try:
                await step()
                if failures:
                    log.info("%s: works again", name)
                failures = 0
            except Exception as error:
                self._failed.labels(name).inc()
                if failures % WARN_EVERY == 0:
                    log.warning("%s: %s", name, error, exc_info=not isinstance(error, Unavailable))
                failures += 1
            await asyncio.sleep(max(0.0, started + period_s - time.monotonic()))


class AuditLog:
    """Reads the audit log on: from its beginning, for what is true since, and counts what is new."""

    def __init__(self, registry: Registry, shown: RegistryMetrics) -> None:
        self._registry = registry
        self._shown = shown
        self._at = BEGINNING
        self._counted: tuple[int, int] | None = None  # up to here, by an earlier monitor

    async def read(self, snapshot: Snapshot) -> None:
        """Up to the snapshot or further, but no more than EVENT_PAGES."""
        newest = place(snapshot.last_event)
        if self._counted is None:
            self._counted = newest
        if newest < place(self._at):  # the registry has lost its data
            self._shown.forget()
            self._at, self._counted = BEGINNING, place(BEGINNING)
        for _ in range(EVENT_PAGES):
            events = await self._registry.events(self._at, EVENTS_PAGE)
            for event in events:
                self._shown.remember(event)
                if place(event.id) > self._counted:
                    self._shown.count(event)
                self._at = event.id
            if len(events) < EVENTS_PAGE:
                return


BEGINNING = "0-0"


def place(event_id: str) -> tuple[int, int]:
    """Where in the log it stands."""
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number)
