"""Smart Turn v3 on ONNX Runtime: does the caller's voice sound as if the turn were over?"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

from daemons.agent.log_mel import SECONDS, log_mel
from daemons.audio import STT_RATE_HZ, FloatSamples, Samples, to_float
from daemons.models import NO_MODEL, model_dir
from daemons.onnx import session
from daemons.settings import Settings

FILE = "smart-turn-v3.2-cpu.onnx"
LIMIT_S = 0.25  # five times what it takes; a later answer would hold up the turn that it is to shorten
MOST_AT_ONCE = 4  # utterances in line, the one that is being heard included

log = logging.getLogger(__name__)


class SmartTurn:
    """Knows no language: it hears pitch, pace and what is drawn out."""

    def __init__(self, model: Path) -> None:
        self._session = session(model)
        self(np.zeros(0, np.float32))  # the first run is slow

    def __call__(self, samples: FloatSamples) -> float:
        """Probability that the utterance `samples` (float32 [n], 16 kHz) is complete; its last 8 s count.

        It should end with the first 100 to 200 ms of silence, as what the model was trained on does.
        """
        [probability] = self._session.run(None, {"input_features": log_mel(samples)[np.newaxis]})
        return float(probability[0, 0])


class TurnListener:
    """Asks the model in a thread of its own, for all calls of the process; who would wait too long gets no answer."""

    def __init__(self, model: Callable[[FloatSamples], float], limit_s: float = LIMIT_S) -> None:
        self._model = model
        self._limit_s = limit_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="smart-turn")
        self._in_line: list[Future[float]] = []

    @classmethod
    async def load(cls, settings: Settings) -> Self | None:
        """None where the words alone decide. Raises ConfigurationError when the model is missing."""
        if settings.turn_model == NO_MODEL:
            return None
        place = model_dir(settings, settings.turn_model)
        return cls(await asyncio.to_thread(SmartTurn, place / FILE if place.is_dir() else place))

    async def probability(self, utterance: Samples) -> float | None:
        """That `utterance` (int16 [n], 16 kHz) is complete; None when that cannot be said in time.

        Cancelled or out of time it leaves the line; what the thread has begun it ends.
        """
        self._in_line = [asked for asked in self._in_line if not asked.done()]
        if len(self._in_line) >= MOST_AT_ONCE:
            return None
        asked = self._thread.submit(self._hear, utterance[-SECONDS * STT_RATE_HZ :])
        self._in_line.append(asked)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), self._limit_s)
        except TimeoutError:
            return None
        except (Fail, RuntimeException) as error:
            log.warning("the turn model failed: %s", error)
            return None

    def _hear(self, utterance: Samples) -> float:
        return self._model(to_float(utterance))

    def close(self) -> None:
        """Waits for what the thread has begun."""
        self._thread.shutdown(cancel_futures=True)
