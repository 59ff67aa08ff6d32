"""Things kept for a while: bounded by how many, how large together, and how long nobody asked for them."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """What was touched longest ago goes first; what is too large for the whole shelf is not kept at all."""

    def __init__(
        self, *, count: int, age_s: float, total_bytes: int = 0, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """`total_bytes` 0: only the count matters."""
        self._count = count
        self._age_s = age_s
        self._total_bytes = total_bytes
        self._now_s = now_s
        self._kept: OrderedDict[str, tuple[T, int, float]] = OrderedDict()

    def keep(self, key: str, thing: T, size_bytes: int = 0) -> None:
        """Put it there, or say that it has changed its size."""
        self._kept[key] = (thing, size_bytes, self._now_s())
        self._kept.move_to_end(key)
        self._trim()

    def get(self, key: str) -> T | None:
        self._trim()
        if key not in self._kept:
            return None
        thing, size_bytes, _ = self._kept[key]
        self._kept[key] = (thing, size_bytes, self._now_s())
        self._kept.move_to_end(key)
        return thing

    @property
    def bytes(self) -> int:
        return sum(size_bytes for _, size_bytes, _ in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def _trim(self) -> None:
        oldest_s = self._now_s() - self._age_s
        total = self.bytes
        for key, (_, size_bytes, touched_s) in list(self._kept.items()):
            too_large = self._total_bytes and total > self._total_bytes
            if touched_s >= oldest_s and len(self._kept) <= self._count and not too_large:
                return
            del self._kept[key]
            total -= size_bytes
