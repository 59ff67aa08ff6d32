"""Whether a figure that was taken after each call grows from call to call."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ops.slope import Slope

WARM_UP_SHARE = 4  # the first of so many parts
QUARTER = 4


@dataclass(frozen=True, slots=True)
class Growth:
    """`first` and `last`: medians of the first and the last quarter of what was taken; `a_call`: its slope."""

    first: float
    last: float
    a_call: Slope

    @classmethod
    def of(cls, taken: Sequence[float]) -> "Growth":
        """Raises ValueError for fewer than two."""
        part = max(1, len(taken) // QUARTER)
        first, last = statistics.median(taken[:part]), statistics.median(taken[-part:])
        return cls(first, last, Slope.of(list(enumerate(taken))))

    @property
    def is_flat(self) -> bool:
        """What is counted in whole numbers has not grown."""
        return self.last <= self.first and self.a_call.low <= 0


def warm_up(calls: int) -> int:
    """How many calls come first that are not judged: caches fill, pools reach their size, allocators their arenas."""
    return calls // WARM_UP_SHARE
