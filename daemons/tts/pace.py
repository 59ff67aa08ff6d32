"""How fast a voice speaks, to guess which words have been said after so much audio."""

from collections.abc import Sequence
from itertools import accumulate

CHARS_PER_S = 15.0  # of English, before the voice has been heard
LEARNS = 0.2  # how much of what is believed the last text changes


class Pace:
    def __init__(self) -> None:
        self.chars_per_s = CHARS_PER_S

    def words_in(self, seconds: float, words: Sequence[str]) -> int:
        """How many of `words` have been said, or begun, after `seconds` of audio."""
        reached = self.chars_per_s * seconds
        ends = accumulate(len(word) + 1 for word in words)
        return sum(end - len(word) - 1 < reached for end, word in zip(ends, words, strict=True))

    def learn(self, seconds: float, words: Sequence[str]) -> None:
        """All of `words` took so long."""
        heard = sum(len(word) + 1 for word in words) / seconds
        self.chars_per_s += LEARNS * (heard - self.chars_per_s)
