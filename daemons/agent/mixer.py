"""The background of a call: ambience, and a thinking sound while the caller waits for an answer.

It has no clock, no queue and no task: playout asks for each frame when it sends one. So nothing is made that is not
sent, and what is kept are two loops and where they stand.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from daemons.audio import TTS_RATE_HZ, FloatSamples, Samples
from daemons.crossfade import fade_in

FADE_SAMPLES = TTS_RATE_HZ * 60 // 1000
_GAINS = np.concatenate([[0.0], fade_in(FADE_SAMPLES), [1.0]]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Sound:
    """`loop`: int16 [n] at 24 kHz, which may follow itself."""

    loop: Samples
    gain_db: float = 0.0


class Place(NamedTuple):
    """Where a sound stands."""

    at: int = 0  # in its loop
    level: int = 0  # 0: silent, and at its beginning; FADE_SAMPLES: wholly faded in


class Mark(NamedTuple):
    """Where the background stood before a frame, and whether the thinking sound was wanted in it."""

    ambience: Place
    thinking: Place
    wanted: bool


class Mixer:
    """Without sounds it leaves every frame as it is."""

    def __init__(self, ambience: Sound | None = None, thinking: Sound | None = None) -> None:
        self._ambience = ambience
        self._thinking = thinking
        self._ambience_place = Place()
        self._thinking_place = Place()
        self._begun = False

    def begin(self) -> None:
        """Ambience from here on."""
        self._begun = True

    def sounds(self, *, thinking: bool) -> bool:
        """There is something to be heard beside what is said; `thinking`: the caller waits for an answer."""
        ambience = self._begun and self._ambience is not None
        return ambience or (self._thinking is not None and (thinking or self._thinking_place.level > 0))

    def mix(self, said: Samples, *, thinking: bool) -> tuple[Samples, Mark]:
        """`said`, int16 [n] at 24 kHz, with the background; where both are too loud together, the background gives way.

        The mark is for `go_back`.
        """
        mark = Mark(self._ambience_place, self._thinking_place, thinking)
        background = self._advance(len(said), thinking=thinking)
        if background is None:
            return said, mark
        return np.clip(said + np.rint(background), -32768, 32767).astype(np.int16), mark

    def go_back(self, mark: Mark, heard: int) -> None:
        """All that was mixed since `mark` but for `heard` samples was not heard: it goes on there."""
        self._ambience_place, self._thinking_place = mark.ambience, mark.thinking
        self._advance(heard, thinking=mark.wanted)

    def _advance(self, count: int, *, thinking: bool) -> FloatSamples | None:
        """The next samples of the background; None when it is silent."""
        ambience, self._ambience_place = _played(self._ambience, self._ambience_place, count, self._begun)
        thought, self._thinking_place = _played(self._thinking, self._thinking_place, count, thinking)
        if ambience is None or thought is None:
            return thought if ambience is None else ambience
        return ambience + thought


def _played(sound: Sound | None, place: Place, count: int, wanted: bool) -> tuple[FloatSamples | None, Place]:
    """The next samples of `sound`, faded in while it is wanted and out while it is not, and where it stands then."""
    if sound is None or not (wanted or place.level):
        return None, Place()
    steps = np.arange(count)
    gains = _GAINS[np.clip(place.level + (steps + 1 if wanted else -steps), 0, FADE_SAMPLES + 1)]
    samples = np.take(sound.loop, place.at + steps, mode="wrap") * gains * np.float32(10 ** (sound.gain_db / 20))
    level = min(max(place.level + (count if wanted else -count), 0), FADE_SAMPLES)
    return samples, Place((place.at + count) % len(sound.loop), level) if level else Place()
