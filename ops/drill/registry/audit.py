"""The audit log as the model keeps it."""

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from daemons.registry import Event

KEPT = 12_000  # the registry keeps about 10,000


class Entry(NamedTuple):
    """A line of the log without its id, which is Redis's own, and without `why`, which is prose."""

    kind: str
    seq: int
    at_ms: int
    data: Mapping[str, str]

    @classmethod
    def of(cls, event: Event) -> "Entry":
        return cls(event.kind, event.seq, event.at_ms, _without_prose(event.data))


class AuditLog:
    def __init__(self) -> None:
        self._entries = deque[Entry](maxlen=KEPT)
        self.length = 0  # of all that was ever written

    def write(self, kind: str, seq: int, at_ms: int, data: Mapping[str, str]) -> None:
        self._entries.append(Entry(kind, seq, at_ms, _without_prose(data)))
        self.length += 1

    def after(self, first: int, count: int) -> tuple[Entry, ...]:
        """The `count` entries after the `first` of all that was ever written."""
        dropped = self.length - len(self._entries)
        start = max(0, first - dropped)
        return tuple(islice(self._entries, start, start + count))


def _without_prose(data: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in data.items() if name != "why"}
