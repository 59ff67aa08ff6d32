"""From samples to words, whatever the engine: long audio is cut at pauses, and what is no speech says nothing."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from daemons.audio import STT_RATE_HZ, FloatSamples
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
    """An engine behind a gate that lets only speech through. Not for two threads at once."""

    def __init__(self, engine: SttEngine, vad: SileroVad) -> None:
        self._engine = engine
        self._vad = vad

    def pieces(self, samples: FloatSamples, cancelled: threading.Event) -> Iterator[Piece]:
        """Transcribe `samples` (float32 [n], 16 kHz, any length), one piece at a time; nothing for non-speech."""
        longest = int(self._engine.longest_s * STT_RATE_HZ)
        for start, end in cut_at_pauses(samples, longest):
            if cancelled.is_set():
                return
            piece = samples[start:end]
            if not has_speech(self._vad, piece, SPEECH_AT_LEAST_MS):
                continue
            shortest = int(self._engine.shortest_s * STT_RATE_HZ)
            text = self._engine.transcribe(np.pad(piece, (0, max(0, shortest - len(piece)))), cancelled)
            if self._is_invention(text, piece):
                continue
            if text:
                yield Piece(start / STT_RATE_HZ, end / STT_RATE_HZ, text)

    def _is_invention(self, text: str, piece: FloatSamples) -> bool:
        bare = text.lower().strip(" .,!?♪")
        if not bare:
            return True
        return bare in LONE_INVENTIONS and not has_speech(self._vad, piece, LONE_SPEECH_AT_LEAST_MS)


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
