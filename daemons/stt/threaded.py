"""An engine whose calls block, run in the worker's lane."""

import time
from typing import Protocol

import numpy as np
from prometheus_client import CollectorRegistry, Counter

from daemons.audio import STT_RATE_HZ, FloatSamples
from daemons.lane import Lane
from daemons.stt.asked import Asked
from daemons.stt.stop import Stop

WARM_UP_S = 1.0


class BlockingEngine(Protocol):
    languages: tuple[str, ...]
    longest_s: float

    def load(self) -> None:
        """Blocks until the model is in memory."""

    def transcribe(self, samples: FloatSamples, stop: Stop) -> str:
        """The words in `samples`: float32 [n], 16 kHz. Once `stop` is set they are cut short, or none."""


class Threaded:
    def __init__(self, engine: BlockingEngine, lane: Lane, metrics: CollectorRegistry, *, model: str) -> None:
        self.languages = engine.languages
        self.longest_s = engine.longest_s
        self.model = model
        self._engine = engine
        self._lane = lane
        self._compute_s = Counter(
            "callbox_compute_seconds_total",
            "Work of the engine; by audio it is the RTF",
            ["stage"],
            registry=metrics,
        )
        for stage in ("transcription", "partial"):  # a series whose first count is not 0 has no increase
            self._compute_s.labels(stage)

    async def load(self) -> None:
        await self._lane.run(lambda _: self._engine.load())
        noise = np.random.default_rng(0).standard_normal(int(WARM_UP_S * STT_RATE_HZ)).astype(np.float32) * 0.1
        await self.transcribe(noise, Asked())

    async def transcribe(self, samples: FloatSamples, asked: Asked) -> str:
        stop = Stop()
        stage = self._compute_s.labels("partial" if asked.purpose == "partial" else "transcription")

        def step(_: object) -> str:
            began_s = time.monotonic()
            try:
                return self._engine.transcribe(samples, stop)
            finally:
                stage.inc(time.monotonic() - began_s)

        return await self._lane.run(step, asked.priority, stop)

    async def check(self) -> None:
        """Nothing stands behind it."""

    async def close(self) -> None:
        """The lane's threads are the worker's."""
