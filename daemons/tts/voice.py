"""What is done to an engine's audio before anybody hears it: silence trimmed, pieces joined, level limited, int16."""

import numpy as np

from daemons.audio import TTS_RATE_HZ, FloatSamples, Samples, to_int16
from daemons.crossfade import OverlapAdd, fade_in
from daemons.tts.engine import Phrase

# An engine puts 0.2 to 0.5 s of near silence around what it says (hibari: 0.21-0.36 s before, 0.3-0.5 s after).
SILENCE = 10 ** (-46 / 20)
LEAD_MS = 20  # kept before the first sound: soft onsets lie below the threshold
TAIL_MS = 40
OPEN_TAIL_MS = 10  # where a sentence goes on without a mark
FADE_MS = 5
PAUSE_AFTER_SENTENCE_MS = 260
PAUSE_AFTER_CLAUSE_MS = 120

GAIN_DB = 6.0  # brings the voice from about -28 to -22 dBFS
CEILING = 10 ** (-1 / 20)
RECOVERY_DB_PER_S = 20.0

_SENTENCE_MARKS = frozenset(".!?。！？…")
_CLAUSE_MARKS = frozenset(",;:—，、；：")
_NOTHING: FloatSamples = np.zeros(0, np.float32)


class Joiner:
    """Sets the phrases of one request side by side: with the pause that belongs between them, or without a seam."""

    def __init__(self, overlap: int) -> None:
        """`overlap` as TtsEngine says it."""
        self._overlap = overlap
        self._pieces = OverlapAdd(overlap)
        self._is_open = False

    def __call__(self, sound: FloatSamples, phrase: Phrase) -> FloatSamples:
        """The audio of `phrase`, float32 [n], trimmed and joined to what was said before it."""
        if not np.any(np.abs(sound) > SILENCE):
            return self.end() if self._is_open and not phrase.is_open else _NOTHING
        ended = _NOTHING
        if not (self._is_open and phrase.before):
            ended = self.end()
            sound = without_lead(sound)
        if phrase.is_open and self._overlap:
            self._is_open = True
            return np.concatenate([ended, self._pieces.push(self._long_enough(sound))])
        pause = pause_ms(phrase)
        sound = without_tail(sound, TAIL_MS if pause else OPEN_TAIL_MS)
        if self._is_open:
            self._is_open = False
            sound = np.concatenate([self._pieces.push(self._long_enough(sound)), self._pieces.end()])
        return np.concatenate([ended, sound, np.zeros(_count(pause), np.float32)])

    def end(self) -> FloatSamples:
        """What was held for the rest of a sentence of which nothing more is heard."""
        if not self._is_open:
            return _NOTHING
        self._is_open = False
        held = self._pieces.end()
        faded: FloatSamples = (held * (1 - fade_in(len(held)))).astype(np.float32)
        return np.concatenate([faded, np.zeros(_count(PAUSE_AFTER_CLAUSE_MS), np.float32)])

    def _long_enough(self, sound: FloatSamples) -> FloatSamples:
        return np.pad(sound, (0, max(0, 2 * self._overlap - len(sound))))


def without_lead(samples: FloatSamples, lead_ms: float = LEAD_MS) -> FloatSamples:
    """From `lead_ms` before the first sound on, faded in. There must be a sound."""
    start = max(0, int(np.argmax(np.abs(samples) > SILENCE)) - _count(lead_ms))
    sound = samples[start:].copy()
    fade = min(_count(FADE_MS), len(sound))
    sound[:fade] *= fade_in(fade).astype(np.float32)
    return sound


def without_tail(samples: FloatSamples, tail_ms: float = TAIL_MS) -> FloatSamples:
    """Until `tail_ms` after the last sound, faded out. There must be a sound."""
    return without_lead(samples[::-1], tail_ms)[::-1]


def pause_ms(phrase: Phrase) -> int:
    """What belongs after a phrase that is not joined to the next one."""
    last = _last_mark(phrase)
    if last in _SENTENCE_MARKS:
        return PAUSE_AFTER_SENTENCE_MS
    return 0 if phrase.is_open and last not in _CLAUSE_MARKS else PAUSE_AFTER_CLAUSE_MS


def _last_mark(phrase: Phrase) -> str:
    """The last character that is neither a space nor closes something."""
    return phrase.text.rstrip("\"'”’)]}»」』）】*_` ")[-1:]


class Limiter:
    """A gain that falls at once, to keep every sample under the ceiling, and recovers slowly.

    It runs on from chunk to chunk, so that the result does not depend on where the chunks are cut.
    """

    def __init__(self, gain_db: float = GAIN_DB) -> None:
        self._gain = 10 ** (gain_db / 20)
        self._reduction_db = 0.0

    def __call__(self, samples: FloatSamples) -> Samples:
        """int16 of `samples` (float32 [n]), so much louder, rounded."""
        if not len(samples):
            return np.zeros(0, np.int16)
        louder = samples.astype(np.float64) * self._gain
        wanted_db = 20 * np.log10(np.maximum(np.abs(louder) / CEILING, 1.0))
        # reduction[n] = max(wanted[n], reduction[n-1] - step): a running maximum once the recovery is added back
        recovered_db = np.arange(1, len(samples) + 1) * (RECOVERY_DB_PER_S / TTS_RATE_HZ)
        peak_db = np.maximum.accumulate(np.maximum(wanted_db + recovered_db, self._reduction_db))
        reduction_db = np.maximum(peak_db - recovered_db, 0.0)
        self._reduction_db = float(reduction_db[-1])
        return to_int16((louder * 10 ** (-reduction_db / 20)).astype(np.float32))


def _count(ms: float) -> int:
    return round(ms * TTS_RATE_HZ / 1000)
