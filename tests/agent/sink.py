"""A sink on a virtual time line, and playout into it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np

from daemons.agent.mixer import Mixer
from daemons.agent.playout import FRAME_SAMPLES, Playout
from daemons.audio import TTS_RATE_HZ, Samples
from daemons.clock import FakeClock

STEP_MS = 10
STEP_SAMPLES = TTS_RATE_HZ * STEP_MS // 1000
FIRST_STEP_MS = 5


class Clock(FakeClock):
    """Counts who sleeps; `stall` lets time pass in which nothing of this process runs."""

    def __init__(self) -> None:
        super().__init__(start_ns=10**9)
        self.sleeps = 0
        self._stalled_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self._stalled_ns

    def stall(self, seconds: float) -> None:
        self._stalled_ns += round(seconds * 1e9)

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        await super().sleep(seconds)


class Speaker:
    """Sends 10 ms at a time as LiveKit's source does, the first of them after 5 ms, and keeps what it sent."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._queue: deque[Samples] = deque()
        self._sent: list[Samples] = []
        self._next_ns = 0
        self.plays = 0
        self.most_queued_ms = 0

    async def play(self, samples: Samples) -> None:
        self.plays += 1
        self._run()
        if not self._queue and self._next_ns <= self._clock.now_ns():
            self._next_ns = self._clock.now_ns() + FIRST_STEP_MS * 1_000_000
        self._queue.extend(samples.reshape(-1, STEP_SAMPLES))
        self.most_queued_ms = max(self.most_queued_ms, len(self._queue) * STEP_MS)

    def clear(self, unsent_samples: int) -> None:
        self._run()
        assert len(self._queue) * STEP_SAMPLES == unsent_samples
        self._queue.clear()

    def heard(self) -> Samples:
        """int16 [n] at 24 kHz."""
        self._run()
        return np.concatenate([np.zeros(0, np.int16), *self._sent])

    def values(self) -> list[int]:
        """The first sample of each 20 ms."""
        return [int(value) for value in self.heard()[::FRAME_SAMPLES]]

    def _run(self) -> None:
        while self._queue and self._next_ns <= self._clock.now_ns():
            self._sent.append(self._queue.popleft())
            self._next_ns += STEP_MS * 1_000_000


class Stage:
    def __init__(self, mixer: Mixer | None = None) -> None:
        self.clock = Clock()
        self.speaker = Speaker(self.clock)
        self.first: list[int] = []
        self.over: list[int] = []
        self.sent: list[Samples] = []
        self.playout = Playout(
            self.speaker, self.clock, mixer or Mixer(), self.sent.append, self._on_frame, self.over.append
        )

    def _on_frame(self, generation: int, played_samples: int) -> None:
        if played_samples == FRAME_SAMPLES:
            self.first.append(generation)

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.playout.run())
        await self.passes(0)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def passes(self, milliseconds: float) -> None:
        await self.clock.advance(milliseconds / 1000)
