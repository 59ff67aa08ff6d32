"""From samples to words, whatever the engine: long audio is cut at pauses, and what is no speech says nothing."""

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

import numpy as np

from daemons.audio import STT_RATE_HZ, FloatSamples
from daemons.lane import Lane
from daemons.stt.asked import Asked
from daemons.stt.engine import SttEngine
from daemons.vad import SileroVad, has_speech

SPEECH_AT_LEAST_MS = 200
# What the engine makes of a click or a hum; said by a person it comes with more speech than a gate lets through.
LONE_INVENTIONS = frozenset({"you", "thank you", "thanks", "bye"})
LONE_SPEECH_AT_LEAST_MS = 320
PAUSE_SAMPLES = STT_RATE_HZ // 5
PAUSE_HOP_SAMPLES = STT_RATE_HZ // 50


@dataclass(frozen=True, slots=True)
class Piece:
    """`text` was said from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    text: str


class Transcriber:
    """An engine behind a gate that lets only speech through."""

    def __init__(self, engine: SttEngine, vad: SileroVad, lane: Lane) -> None:
        self._engine = engine
        self._vad = vad
        self._lane = lane  # of one thread: the gate takes one piece at a time

    async def pieces(self, samples: FloatSamples, asked: Asked) -> AsyncGenerator[Piece, None]:
        """Transcribe `samples` (float32 [n], 16 kHz, any length), one piece at a time; nothing for non-speech.

        Others' work comes in between two pieces.
        """
        for start, end in cut_at_pauses(samples, int(self._engine.longest_s * STT_RATE_HZ)):
            piece = samples[start:end]
            if not await self._has_speech(piece, SPEECH_AT_LEAST_MS, asked):
                continue
            text = await self._engine.transcribe(piece, asked)
            if text and not await self._is_invention(text, piece, asked):
                yield Piece(start / STT_RATE_HZ, end / STT_RATE_HZ, text)

    async def _is_invention(self, text: str, piece: FloatSamples, asked: Asked) -> bool:
        bare = text.lower().strip(" .,!?♪")
        if not bare:
            return True
        return bare in LONE_INVENTIONS and not await self._has_speech(piece, LONE_SPEECH_AT_LEAST_MS, asked)

    async def _has_speech(self, piece: FloatSamples, at_least_ms: float, asked: Asked) -> bool:
        return await self._lane.run(lambda _: has_speech(self._vad, piece, at_least_ms), asked.priority)


def cut_at_pauses(samples: FloatSamples, longest: int) -> Iterator[tuple[int, int]]:
    """(start, end) of parts of at most `longest` samples, cut at the quietest moment of each part's second half."""
    start = 0
    while len(samples) - start > longest:
        cut = start + longest // 2 + _quietest(samples[start + longest // 2 : start + longest])
        yield start, cut
        start = cut
    if start < len(samples):
        yield start, len(samples)


def _quietest(samples: FloatSamples) -> int:
    """The middle of the pause-long window with the least energy."""
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    starts = np.arange(0, max(1, len(samples) - PAUSE_SAMPLES), PAUSE_HOP_SAMPLES)
    ends = np.minimum(starts + PAUSE_SAMPLES, len(samples))
    quietest = int(np.argmin(energy[ends] - energy[starts]))
    return int((starts[quietest] + ends[quietest]) // 2)
