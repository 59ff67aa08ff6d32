"""The monitor: looks at every worker's health from outside, ends what is overdue, and counts what happens."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from yarl import URL

from daemons.errors import Unavailable
from daemons.monitor.metrics import RegistryMetrics
from daemons.registry import Registry, WorkerRecord, WorkerState

log = logging.getLogger(__name__)

REAP_S = 1.0
PROBE_S = 2.0
PROBE_TIMEOUT_S = 1.0
WARN_EVERY = 30  # passes: a registry that is away for long is not news each second
EVENTS_PAGE = 1000
NOT_PROBED = (WorkerState.GONE, WorkerState.EXPECTED)


class Monitor:
    """A service of the runtime. It holds no state that a restart would lose, but the counters of its metrics."""

    role = "monitor"
    slots = 0
    direct_slots = 0

    def __init__(self, registry: Registry, metrics: CollectorRegistry) -> None:
        self._registry = registry
        self._shown = RegistryMetrics(metrics)
        self._bad_probes = Counter(
            "callbox_bad_probes_total", "Probes that did not find the worker well", ["role"], registry=metrics
        )
        self._failed = Counter(
            "callbox_monitor_failures_total", "Passes of the monitor that ended early", ["pass"], registry=metrics
        )
        self._last_event: str | None = None
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0), timeout=aiohttp.ClientTimeout(None)
        )
        self._loops: list[asyncio.Task[None]] = []

    async def load(self) -> str:
        self._loops = [
            asyncio.create_task(self._each(PROBE_S, "probe", self.probe_all)),
            asyncio.create_task(self._each(REAP_S, "reap", self.reap)),
        ]
        return ""

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return ()

    async def drain(self) -> None:
        """There is nothing to wait for."""

    async def close(self) -> None:
        for loop in self._loops:
            loop.cancel()
        for loop in self._loops:
            with suppress(asyncio.CancelledError):
                await loop
        await self._http.close()

    async def probe_all(self) -> None:
        """Look at every worker at once, and tell the registry what was seen."""
        workers = (await self._registry.snapshot()).workers
        await asyncio.gather(*(self._probe(worker) for worker in workers if worker.state not in NOT_PROBED))

    async def reap(self) -> None:
        await self._registry.reap()
        snapshot = await self._registry.snapshot()
        self._shown.show(snapshot)
        if self._last_event is None:
            self._last_event = snapshot.last_event
        while events := await self._registry.events(self._last_event, EVENTS_PAGE):
            self._shown.count(events)
            self._last_event = events[-1].id

    async def _probe(self, worker: WorkerRecord) -> None:
        problem = await problem_of(self._http, worker)
        if problem is not None:
            self._bad_probes.labels(worker.role).inc()
        probed = await self._registry.probe(worker.worker, worker.boot, ok=problem is None)
        if problem is not None and worker.state is not WorkerState.UNHEALTHY:
            log.warning("%s (%s) is not well: %s; it is %s", worker.worker, worker.role, problem, probed.state)

    async def _each(self, period_s: float, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Run `step` each `period_s`, whatever becomes of it."""
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


async def problem_of(http: aiohttp.ClientSession, worker: WorkerRecord) -> str | None:
    """What is wrong with the worker, None when it is well; so is one that still loads, within its own time limit."""
    addr = URL(worker.addr)
    health = addr.with_port((addr.port or 0) + 1)
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            async with http.get(health / "health") as response:
                seen = await response.json()
            if seen["boot"] != worker.boot:
                return f"another process answers on its port (boot {seen['boot']})"
            async with http.get(health / ("livez" if seen["phase"] == "loading" else "readyz")) as response:
                return None if response.status == 200 else (await response.text()).strip()[:200]
    except TimeoutError:
        return f"no answer within {PROBE_TIMEOUT_S:g} s"
    except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
