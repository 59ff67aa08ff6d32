"""How much of what was said was understood."""

import re
from typing import NamedTuple


def plain(text: str) -> list[str]:
    """Its words in lower case, without marks, so that two spellings of the same words are equal."""
    text = re.sub(r"\bmr\.", "mister", re.sub(r"\bmrs\.", "missus", text.lower())).replace("-", " ")
    return re.sub(r"[^\w\s']", " ", text).split()


class WordErrors(NamedTuple):
    """Words that would have to be changed, added or taken away, of so many that were said."""

    errors: int
    words: int

    @classmethod
    def between(cls, said: str, heard: str) -> "WordErrors":
        """By Levenshtein's distance over `plain` words."""
        reference, hypothesis = plain(said), plain(heard)
        row = list(range(len(hypothesis) + 1))
        for at, word in enumerate(reference, 1):
            diagonal, row[0] = row[0], at
            for column, other in enumerate(hypothesis, 1):
                cheapest = min(diagonal + (word != other), row[column] + 1, row[column - 1] + 1)
                diagonal, row[column] = row[column], cheapest
        return cls(row[-1], len(reference))

    def __add__(self, other: object) -> "WordErrors":
        if not isinstance(other, WordErrors):
            return NotImplemented
        return WordErrors(self.errors + other.errors, self.words + other.words)

    @property
    def rate(self) -> float:
        """0 when all was understood; more than 1 is possible."""
        return self.errors / self.words if self.words else float(self.errors > 0)
