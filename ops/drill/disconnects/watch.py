"""What can be seen of a worker from outside: its metrics, its health, its process."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import psutil

from ops.metrics import Metrics, metrics_at
from ops.run import StepFailed
from ops.worker import Worker

POLL_S = 0.005
QUIET_S = 0.2  # without progress: it has stopped
LOOK_S = 0.25
FRESH_S = 1.5  # by then a worker has written its metrics again
_BAD_LINE = re.compile(r"^\S+ \S+ (ERROR|CRITICAL) |^Traceback |^Exception ignored ")


@dataclass(frozen=True, slots=True)
class State:
    """What clients that went away must have left as it was."""

    in_flight: int
    direct_places: int  # held
    call_places: int
    leases: int
    connections: int
    tasks: int
    threads: int
    files: int  # without its own connections to Redis, which are as many as it once needed at once
    memory_bytes: int


class Watch:
    """Looks at one worker."""

    def __init__(self, worker: Worker, http: aiohttp.ClientSession, boot: str, pid: int) -> None:
        self.worker = worker
        self.boot = boot
        self._http = http
        self._process = psutil.Process(pid)
        self._log_read_bytes = 0

    @classmethod
    async def on(cls, worker: Worker, http: aiohttp.ClientSession) -> "Watch":
        health = await worker.health(http)
        return cls(worker, http, health["boot"], health["pid"])

    async def metrics(self) -> Metrics:
        """As the worker wrote them last, which it does each second."""
        return await metrics_at(self._http, self.worker.health_url)

    async def state(self) -> State:
        health, metrics = await self.worker.health(self._http), await self.metrics()
        with self._process.oneshot():
            sockets = [one for one in self._process.net_connections("tcp") if one.status != psutil.CONN_LISTEN]
            connections = sum(one.laddr.port == self.worker.port for one in sockets)
            return State(
                in_flight=health["in_flight"],
                direct_places=int(metrics["callbox_requests_open", ("direct",)]),
                call_places=int(metrics["callbox_requests_open", ("call",)]),
                leases=health["leases"],
                connections=connections,
                tasks=int(metrics["callbox_tasks", ()]),
                threads=self._process.num_threads(),
                files=self._process.num_fds() - (len(sockets) - connections),
                memory_bytes=self.memory_bytes(),
            )

    def memory_bytes(self) -> int:
        resident: int = self._process.memory_info().rss
        return resident

    async def memory_at_rest_bytes(self) -> int:
        """What it has when nobody is there, without audio that it keeps for streams that were cut off, on purpose."""
        await self.worker.until_idle(self._http)
        await asyncio.sleep(FRESH_S)
        kept_bytes = (await self.metrics()).get(("callbox_tts_kept_bytes", ()), 0)
        return self.memory_bytes() - int(kept_bytes)

    async def until(self, fits: Callable[[State], bool], limit_s: float) -> State:
        """The first state that fits, or the last one within the limit."""
        deadline = time.monotonic() + limit_s
        while True:
            state = await self.state()
            if fits(state) or time.monotonic() > deadline:
                return state
            await asyncio.sleep(LOOK_S)

    async def stopped_after_ms(self, leave: Callable[[], Awaitable[None]], limit_s: float) -> float | None:
        """From when `leave` is called to the last thing that the worker did; None when it had stopped before.

        The worker's shared memory tells when its work last moved on, and whether some is in flight. It has stopped when
        that did not change for QUIET_S. Raises StepFailed when it has not after `limit_s`.
        """
        if not (await self.worker.health(self._http))["in_flight"]:
            return None
        left_s = time.monotonic()
        leaving = asyncio.ensure_future(leave())
        try:
            while time.monotonic() < left_s + limit_s:
                health = await self.worker.health(self._http)
                moved_s = time.monotonic() - health["progress_age_s"]
                if not health["in_flight"] and health["progress_age_s"] > QUIET_S:
                    return (moved_s - left_s) * 1000 if moved_s > left_s else None
                await asyncio.sleep(POLL_S)
        finally:
            await leaving
        raise StepFailed(f"the {self.worker.role} worker has not stopped {limit_s:g} s after its client went away")

    def bad_lines(self) -> list[str]:
        """Those that came into its log since the last time."""
        with self.worker.log.open("rb") as log:
            log.seek(self._log_read_bytes)
            text = log.read()
        self._log_read_bytes += len(text)
        return [line for line in text.decode(errors="replace").splitlines() if _BAD_LINE.match(line)]
