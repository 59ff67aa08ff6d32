"""What is done to an engine's audio before anybody hears it: silence trimmed, pauses set, level limited, int16."""

import numpy as np

from daemons.audio import TTS_RATE_HZ, FloatSamples, Samples, to_int16

# An engine puts 0.2 to 0.5 s of near silence around what it says (hibari: 0.21-0.36 s before, 0.3-0.5 s after).
SILENCE = 10 ** (-46 / 20)
LEAD_MS = 20  # kept before the first sound: soft onsets lie below the threshold
TAIL_MS = 40
FADE_MS = 5
PAUSE_AFTER_SENTENCE_MS = 260
PAUSE_AFTER_CLAUSE_MS = 120
PAUSE_AFTER_WORD_MS = 20

GAIN_DB = 6.0  # brings the voice from about -28 to -22 dBFS
CEILING = 10 ** (-1 / 20)
RECOVERY_DB_PER_S = 20.0


def trimmed(samples: FloatSamples, text: str) -> FloatSamples:
    """Without the engine's silence, and with the pause that belongs after `text`. Empty when there is no sound."""
    loud = np.flatnonzero(np.abs(samples) > SILENCE)
    if not len(loud):
        return samples[:0]
    start = max(0, int(loud[0]) - _count(LEAD_MS))
    end = min(len(samples), int(loud[-1]) + 1 + _count(TAIL_MS))
    sound = samples[start:end].copy()
    fade = min(_count(FADE_MS), len(sound))
    ramp = np.sin(np.pi / 2 * (np.arange(fade, dtype=np.float32) + 0.5) / fade) ** 2
    sound[:fade] *= ramp
    sound[-fade:] *= ramp[::-1]
    return np.concatenate([sound, np.zeros(_count(pause_ms(text)), np.float32)])


def pause_ms(text: str) -> int:
    last = text.rstrip("\"'”’)]}»」』）】*_` ")[-1:]
    if last in ".!?。！？…":
        return PAUSE_AFTER_SENTENCE_MS
    return PAUSE_AFTER_CLAUSE_MS if last in ",;:—，、；：" else PAUSE_AFTER_WORD_MS


class Limiter:
    """A gain that falls at once, to keep every sample under the ceiling, and recovers slowly.

    It runs on from chunk to chunk, so that the result does not depend on where the chunks are cut.
    """

    def __init__(self) -> None:
        self._reduction_db = 0.0

    def __call__(self, samples: FloatSamples) -> Samples:
        """int16 of `samples` (float32 [n]), GAIN_DB louder, rounded."""
        if not len(samples):
            return np.zeros(0, np.int16)
        louder = samples.astype(np.float64) * 10 ** (GAIN_DB / 20)
        wanted_db = 20 * np.log10(np.maximum(np.abs(louder) / CEILING, 1.0))
        # reduction[n] = max(wanted[n], reduction[n-1] - step): a running maximum once the recovery is added back
        recovered_db = np.arange(1, len(samples) + 1) * (RECOVERY_DB_PER_S / TTS_RATE_HZ)
        peak_db = np.maximum.accumulate(np.maximum(wanted_db + recovered_db, self._reduction_db))
        reduction_db = np.maximum(peak_db - recovered_db, 0.0)
        self._reduction_db = float(reduction_db[-1])
        return to_int16((louder * 10 ** (-reduction_db / 20)).astype(np.float32))


def _count(ms: float) -> int:
    return round(ms * TTS_RATE_HZ / 1000)
