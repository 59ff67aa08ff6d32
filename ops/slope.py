"""Whether something grows: the slope of a noisy series, and how sure it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SURE = 1.96  # standard deviations: 95 %


@dataclass(frozen=True, slots=True)
class Slope:
    """The median of the slopes between any two points (Theil-Sen), and its 95 % interval (Sen, by Kendall's S).

    One step, as of an arena that grows once for the most work at once so far, moves it little; what is left of each
    step moves it by just that.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, points: Sequence[tuple[float, float]]) -> "Slope":
        """`points`: (x, y), no two with the same x. Raises ValueError for fewer than two."""
        if len(points) < 2:
            raise ValueError("one point has no slope")
        x, y = np.array(sorted(points), np.float64).T
        sooner, later = np.triu_indices(len(x), 1)
        slopes = np.sort((y[later] - y[sooner]) / (x[later] - x[sooner]))
        beside = SURE * _spread(y) / 2
        low, high = len(slopes) / 2 - beside, len(slopes) / 2 + beside
        return cls(
            float(np.median(slopes)),
            float(slopes[max(0, int(np.floor(low)) - 1)]),
            float(slopes[min(len(slopes) - 1, int(np.ceil(high)))]),
        )


def _spread(y: np.ndarray) -> float:
    """The standard deviation of Kendall's S of a series without a slope; values that are the same count less."""

    def pairs(n: np.ndarray | int) -> float:
        return float(np.sum(n * (n - 1) * (2 * n + 5)))

    _, same = np.unique(y, return_counts=True)
    return float(np.sqrt((pairs(len(y)) - pairs(same)) / 18))
