"""Complementary half-Hann overlap-add: audio made in windows that overlap is joined without a seam."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # so that it needs numpy alone
    from daemons.audio import FloatSamples


def fade_in(samples: int) -> npt.NDArray[np.float64]:
    """sin²(π(k+½)/2n), k = 0 … n-1. What fades out beside it has 1 - fade_in, so the two sum to exactly 1."""
    return np.square(np.sin(np.pi * (np.arange(samples) + 0.5) / (2 * samples)))


def crossfaded(earlier: "FloatSamples", later: "FloatSamples") -> "FloatSamples":
    """From `earlier` to `later`, both float32 [n] of the same time. Raises ValueError when one is longer."""
    if len(earlier) != len(later):
        raise ValueError(f"{len(earlier)} samples cannot fade into {len(later)}")
    ramp = fade_in(len(earlier))
    return (earlier * (1 - ramp) + later * ramp).astype(np.float32)


class OverlapAdd:
    """Windows that each begin with the last `overlap` samples of the one before, made one stream."""

    def __init__(self, overlap: int) -> None:
        self._overlap = overlap
        self._held: FloatSamples = np.zeros(0, np.float32)

    def push(self, window: "FloatSamples") -> "FloatSamples":
        """What is settled by `window`, float32 [n]. Raises ValueError when it is shorter than the overlap."""
        if len(window) < self._overlap:
            raise ValueError(f"a window of {len(window)} samples cannot overlap by {self._overlap}")
        shared = len(self._held)
        joined = np.concatenate([crossfaded(self._held, window[:shared]), window[shared:]])
        settled = len(joined) - self._overlap
        self._held = joined[settled:]
        return joined[:settled]

    def end(self) -> "FloatSamples":
        """What was held for a window that does not come."""
        held, self._held = self._held, np.zeros(0, np.float32)
        return held
