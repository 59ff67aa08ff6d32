"""What faults do to sound: the same to a whole recording and to a stream, however it is cut up.

A spoiler takes [n] at RATE_HZ, piece after piece, and is told when to strike: it does not look ahead.
"""

from collections.abc import Container, Iterable
from typing import Protocol

import numpy as np

from ops.lab.signals import FRAME, RATE_HZ, Signal

BOOM_HZ = 60.0
BOOM = round(0.1 * RATE_HZ)
PACKET = 2 * FRAME  # 20 ms, what WebRTC sends at a time
PARTS = 1_000_000  # of one: how finely a speed is told


class Spoiler(Protocol):
    """Of one recording, or one stream."""

    def __call__(self, signal: Signal) -> Signal:
        """What leaves when `signal` comes: [n] → [m]."""

    def end(self) -> Signal:
        """What is left when no more comes."""

    def length(self, samples: int) -> int:
        """How long that is, in the end, which was so long when it came."""


def spoilt(signal: Signal, spoiler: Spoiler) -> Signal:
    """A whole recording, by a spoiler that is new."""
    return np.concatenate([spoiler(signal), spoiler.end()])


class _InPlace:
    """Leaves every sample where it is."""

    def __init__(self) -> None:
        self._at = 0

    def __call__(self, signal: Signal) -> Signal:
        at, self._at = self._at, self._at + len(signal)
        return self._spoilt(signal, at)

    def end(self) -> Signal:
        return np.zeros(0)

    def length(self, samples: int) -> int:
        return samples

    def _spoilt(self, signal: Signal, at: int) -> Signal:
        """`signal` begins at sample `at` of the stream; it is not to be changed itself."""
        raise NotImplementedError


class Boom(_InPlace):
    """A thump at each of `places`, which are samples of the stream."""

    def __init__(self, peak_dbfs: float, places: Iterable[int]) -> None:
        super().__init__()
        self._thump = np.sin(2 * np.pi * BOOM_HZ * np.arange(BOOM) / RATE_HZ) * np.hanning(BOOM)
        self._thump *= 10 ** (peak_dbfs / 20)
        self._places = tuple(places)

    def _spoilt(self, signal: Signal, at: int) -> Signal:
        struck = signal.copy()
        for place in self._places:
            first, last = max(place, at), min(place + BOOM, at + len(signal))
            if first < last:
                struck[first - at : last - at] += self._thump[first - place : last - place]
        return struck


class Distort(_InPlace):
    """Driven `drive` times beyond `loudest`, where it would begin to be distorted; of `peak` then."""

    def __init__(self, drive: float, loudest: float, peak: float) -> None:
        super().__init__()
        self._drive = drive / loudest
        self._peak = peak

    def _spoilt(self, signal: Signal, at: int) -> Signal:
        return np.asarray(self._peak * np.tanh(self._drive * signal))


class Loss(_InPlace):
    """Silence in the place of packets; `lost` are their numbers."""

    def __init__(self, lost: Container[int]) -> None:
        super().__init__()
        self._lost = lost

    def _spoilt(self, signal: Signal, at: int) -> Signal:
        holed = signal.copy()
        for number in range(at // PACKET, -(-(at + len(signal)) // PACKET)):
            if number in self._lost:
                first = number * PACKET - at
                holed[max(0, first) : first + PACKET] = 0
        return holed


class Speed:
    """So many percent longer, and lower: read between the samples, at places in whole numbers, so that no cut shows."""

    def __init__(self, percent: float) -> None:
        self._parts = round(PARTS * (1 + percent / 100))
        self._came = 0
        self._left = 0
        self._last: Signal = np.zeros(0)

    def __call__(self, signal: Signal) -> Signal:
        held, first = np.concatenate([self._last, signal]), self._came - len(self._last)
        self._came += len(signal)
        self._last = held[-1:]
        return self._read(held, first, self.length(self._came - 1))

    def end(self) -> Signal:
        """The last sample goes on for as long as it takes."""
        return self._read(np.repeat(self._last, 2), self._came - 1, self.length(self._came))

    def length(self, samples: int) -> int:
        return max(0, -(-samples * self._parts // PARTS))

    def _read(self, held: Signal, first: int, until: int) -> Signal:
        """What leaves up to `until`; `held` begins at sample `first` of what came."""
        places = np.arange(self._left, until, dtype=np.int64) * PARTS
        self._left = until
        before, beyond = places // self._parts - first, places % self._parts / self._parts
        return np.asarray(held[before] + beyond * (held[before + 1] - held[before]))
