"""Monotonic time as an argument, so that timing logic is tested without waiting."""

import asyncio
import contextlib
import heapq
import itertools
import time
from typing import Protocol


class Clock(Protocol):
    def now_ns(self) -> int:
        """Monotonic time in nanoseconds (CLOCK_MONOTONIC: one time line for all processes of a machine)."""

    async def sleep(self, seconds: float) -> None: ...

    async def happens(self, event: asyncio.Event, within_s: float) -> bool:
        """Wait for `event`, for so long at most; whether it is set."""


class SystemClock:
    def now_ns(self) -> int:
        return time.monotonic_ns()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def happens(self, event: asyncio.Event, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await event.wait()
        return event.is_set()


class FakeClock:
    """Time that moves only when `advance` is called; sleepers wake in the order of their deadlines."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tie = itertools.count()

    def now_ns(self) -> int:
        return self._now_ns

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_ns + round(seconds * 1e9), next(self._tie), woken))
        await woken

    async def happens(self, event: asyncio.Event, within_s: float) -> bool:
        waits = [asyncio.ensure_future(self.sleep(within_s)), asyncio.ensure_future(event.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return event.is_set()

    async def advance(self, seconds: float) -> None:
        """Move time on, letting every sleeper that is due run before the next one wakes."""
        end_ns = self._now_ns + round(seconds * 1e9)
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end_ns:
            self._now_ns, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await self._settle()
        self._now_ns = end_ns
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        for _ in range(10):  # a woken task may wake others; each hop takes a pass of the loop
            await asyncio.sleep(0)
