"""A world: a Redis of its own, workers and holders that reach it through proxies, callers, and an oracle that watches.

Whoever ends is started again at once, as supervisord would.
"""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from daemons.errors import EXIT_DO_NOT_RESTART, Unavailable
from daemons.monitor.probe import problem_of
from daemons.registry import Snapshot, WorkerRecord, WorkerState, connect
from daemons.settings import PREFIX
from ops.drill.faults.callers import Callers
from ops.drill.faults.forks import Child, Forks
from ops.drill.faults.journal import Reader
from ops.drill.faults.oracle import REDIS, STALL_S, Oracle
from ops.drill.faults.proxy import Proxy
from ops.drill.faults.redis import Redis
from ops.free_ports import free_pair
from ops.run import StepFailed

ROLES = ("agent", "stt", "tts")
PROCESSES = {"agent": 2, "stt": 3, "tts": 3, "monitor": 1}  # of speech workers one more than the agents' calls need
SLOTS = 2
CALLERS = 8
QUEUE_MAX = 6
LOOK_S = 0.25
EVENTS_PAGE = 500
START_S = 60.0
RESTART_S = 0.2


@dataclass(frozen=True, slots=True)
class Entries:
    """What the processes of a world run, as `Forks.start` wants it; a test puts a broken one in a place."""

    worker: str = "ops.drill.faults.worker:run"
    agent: str = "ops.drill.faults.agent:run"
    monitor: str = "ops.drill.faults.monitor:run"

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(entry.partition(":")[0] for entry in (self.worker, self.agent, self.monitor))


DEFAULT = Entries()


@dataclass(eq=False)
class Party:
    """One process and its way to Redis; the callers too have a way, and no process of their own."""

    name: str
    role: str
    proxy: Proxy
    port: int = 0
    child: Child | None = None
    may_start: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)  # set at each start

    @property
    def worker(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.proxy.port}/0"

    def signal(self, signum: signal.Signals) -> None:
        if self.child is not None:
            self.child.signal(signum)


class World:
    """Runs while inside `running`."""

    def __init__(self, name: str, folder: Path, forks: Forks, entries: Entries) -> None:
        self.name = name
        self.oracle = Oracle()
        self.parties: list[Party] = []
        self.snapshot: Snapshot | None = None  # the latest
        self._folder = folder
        self._forks = forks
        self._entries = entries
        self._background: list[asyncio.Task[None]] = []
        self.redis = Redis(free_pair(), folder / "redis", forks)

    @property
    def workers(self) -> list[Party]:
        """Those that are registered."""
        return [party for party in self.parties if party.role in ROLES]

    def party(self, name: str) -> Party:
        return next(party for party in self.parties if party.name == name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        """All workers are up and calls go on. Raises StepFailed when they do not come up."""
        self._folder.mkdir(parents=True)
        journal = self._folder / "journal"
        async with AsyncExitStack() as stack:
            self._reader = Reader(journal)
            stack.callback(self._reader.close)
            await self.redis.start()
            await self._arrange(stack)
            self._registry = connect(self.redis.url)
            stack.push_async_callback(self._registry.close)
            callers_registry = connect(self.party("callers").redis_url)
            stack.push_async_callback(callers_registry.close)
            self._background += [
                *(asyncio.create_task(self._keep_up(party, journal)) for party in self.parties if party.port),
                asyncio.create_task(self._feel_stalls()),
                asyncio.create_task(self._watch()),
            ]
            stack.push_async_callback(_ended, self._background)
            await self.meanwhile(self._until_all_well())
            callers = Callers(
                callers_registry, ROLES, QUEUE_MAX, is_held=self.oracle.is_held, hang_up=self.oracle.hung_up
            )
            self._background += [asyncio.create_task(callers.call_again_and_again()) for _ in range(CALLERS)]
            yield self

    async def meanwhile(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this while the world goes on. Raises what broke the world."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait([task, *self._background], return_when=asyncio.FIRST_COMPLETED)
            for done in [*self._background, task]:
                if done.done():
                    done.result()
        finally:
            await _ended([task])

    async def _arrange(self, stack: AsyncExitStack) -> None:
        for role, count in PROCESSES.items():
            for number in range(1, count + 1):
                proxy = await stack.enter_async_context(Proxy(self.redis.port))
                party = Party(f"{role}{number}", role, proxy, free_pair())
                party.may_start.set()
                self.parties.append(party)
        proxy = await stack.enter_async_context(Proxy(self.redis.port))
        self.parties.append(Party("callers", "callers", proxy))

    # Processes

    async def _keep_up(self, party: Party, journal: Path) -> None:
        entry = {"agent": self._entries.agent, "monitor": self._entries.monitor}.get(party.role, self._entries.worker)
        args = {"agent": [str(journal)], "monitor": []}.get(party.role, [party.role, str(journal)])
        environment = {
            f"{PREFIX}REDIS_URL": party.redis_url,
            f"{PREFIX}{party.role.upper()}_PORT": str(party.port),
            f"{PREFIX}SLOTS": str(SLOTS),
            f"{PREFIX}VAR_DIR": str(self._folder),
        }
        while True:
            await party.may_start.wait()
            party.child = await self._forks.start(
                entry=entry, args=args, environment=environment, log=self._folder / f"{party.name}.log"
            )
            party.started.set()
            code = await party.child.wait()
            if (boot := self.boot_of(party)) is not None:
                self.oracle.died(party.worker, boot, time.monotonic_ns())
            if code == EXIT_DO_NOT_RESTART:
                raise StepFailed(f"{party.name} of {self.name} has ended for good; {self._folder}/{party.name}.log")
            await asyncio.sleep(RESTART_S)

    # What is seen

    def boot_of(self, party: Party) -> str | None:
        """As the registry last showed it."""
        return next((w.boot for w in self.records() if w.worker == party.worker), None)

    def records(self) -> Iterable[WorkerRecord]:
        return self.snapshot.workers if self.snapshot is not None else ()

    def available(self, party: Party) -> bool:
        """Whether the registry would grant its slots, and it is there to serve them."""
        return any(
            w.worker == party.worker and w.state is WorkerState.AVAILABLE and not self.oracle.is_dead(w.worker, w.boot)
            for w in self.records()
        )

    async def until_all_available(self, limit_s: float) -> None:
        """Raises StepFailed."""
        deadline = time.monotonic() + limit_s
        while missing := [party.name for party in self.workers if not self.available(party)]:
            if time.monotonic() > deadline:
                raise StepFailed(f"{self.name}: {', '.join(missing)} did not come up in {limit_s:g} s")
            await asyncio.sleep(LOOK_S)

    async def _until_all_well(self) -> None:
        """Also their health processes, which start later than their workers. Raises StepFailed."""
        await self.until_all_available(START_S)
        deadline = time.monotonic() + START_S
        async with aiohttp.ClientSession() as http:
            while problems := [problem for record in self.records() if (problem := await problem_of(http, record))]:
                if time.monotonic() > deadline:
                    raise StepFailed(f"{self.name}: {problems[0]}")
                await asyncio.sleep(LOOK_S)

    async def _watch(self) -> None:
        since = "0-0"
        while True:
            for entry in self._reader.entries():
                self.oracle.read(entry)
            asked_ns = time.monotonic_ns()
            with contextlib.suppress(Unavailable):
                self.snapshot = await self._registry.snapshot()
                self.oracle.see(self.snapshot, time.monotonic_ns())
                for event in await self._registry.events(since, EVENTS_PAGE):
                    self.oracle.hear(event, time.monotonic_ns())
                    since = event.id
            answered_ns = time.monotonic_ns()
            if answered_ns - asked_ns > STALL_S * 1e9 and not self.oracle.in_trouble(REDIS, asked_ns, after_s=0):
                self.oracle.stalled(asked_ns, answered_ns)  # nobody spoils our own way to Redis
            await asyncio.sleep(LOOK_S)

    async def _feel_stalls(self) -> None:
        while True:
            slept_ns = time.monotonic_ns()
            await asyncio.sleep(LOOK_S)
            woke_ns = time.monotonic_ns()
            if woke_ns - slept_ns > (LOOK_S + STALL_S) * 1e9:
                self.oracle.stalled(slept_ns, woke_ns)


async def _ended(tasks: list["asyncio.Task[None]"]) -> None:
    """Asked again and again: before Python 3.12, asyncio.wait_for, which redis-py calls, may lose a cancel."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        done, pending = await asyncio.wait(pending, timeout=0.2)
        for task in done:
            if not task.cancelled():
                task.exception()  # heard; what matters of it has been raised by `meanwhile`
