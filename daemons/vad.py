"""Silero voice activity detection on ONNX Runtime: is there speech in the next 32 ms?"""

from pathlib import Path

import numpy as np

from daemons.audio import STT_RATE_HZ, FloatSamples
from daemons.onnx import session

WINDOW_SAMPLES = 512
WINDOW_MS = WINDOW_SAMPLES * 1000 / STT_RATE_HZ
CONTEXT_SAMPLES = 64  # the end of the last window, which the network wants to see again
SPEECH_PROBABILITY = 0.5


class SileroVad:
    """Windows of one stream, in order. Not for two threads at once."""

    def __init__(self, model: Path) -> None:
        self._session = session(model)
        self._rate = np.array(STT_RATE_HZ, np.int64)
        self._state: FloatSamples
        self._context: FloatSamples
        self.reset()

    def __call__(self, window: FloatSamples) -> float:
        """Probability of speech in `window`: float32 [512] at 16 kHz."""
        heard = np.concatenate([self._context, window])
        probability, self._state = self._session.run(
            None, {"input": heard[np.newaxis], "state": self._state, "sr": self._rate}
        )
        self._context = heard[-CONTEXT_SAMPLES:]
        return float(probability[0, 0])

    def reset(self) -> None:
        """Forget the stream; the next window begins another."""
        self._state = np.zeros((2, 1, 128), np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)


def has_speech(vad: SileroVad, samples: FloatSamples, at_least_ms: float) -> bool:
    """Whether at least so much of `samples` (float32 [n], 16 kHz) is speech; looks no further than it must."""
    vad.reset()
    speech_ms = 0.0
    whole = np.pad(samples, (0, -len(samples) % WINDOW_SAMPLES))
    for at in range(0, len(whole), WINDOW_SAMPLES):
        if vad(whole[at : at + WINDOW_SAMPLES]) >= SPEECH_PROBABILITY:
            speech_ms += WINDOW_MS
            if speech_ms >= at_least_ms:
                return True
    return False
