"""What workers and holders write down: one line for each piece of work they did, and under which lease.

Many processes append to one file. A line is one write(2), so lines never mix; those of one process are in its order,
and what a process wrote before it asked another stands before what that other wrote. Times are CLOCK_MONOTONIC.
"""

import os
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple


class Kind(StrEnum):
    BEGIN = "begin"  # work was accepted under this lease
    STEP = "step"  # it moved on
    END = "end"  # it is over; the note says why
    GIVEN = "given"  # a holder was given this member, by a grant or a swap
    STALE = "stale"  # a holder sent a request under a lease that it no longer has; the note says the answer
    FORGED = "forged"  # the same for a lease that nobody ever had


class Entry(NamedTuple):
    at_ns: int
    kind: Kind
    role: str
    worker: str
    boot: str
    slot: int
    fence: int
    call: str
    work: int  # which piece of work, counted by its process; 0 where none is meant
    note: str


class Journal:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def write(
        self, kind: Kind, role: str, worker: str, boot: str, slot: int, fence: int, call: str, work: int, note: str = ""
    ) -> None:
        line = f"{time.monotonic_ns()} {kind} {role} {worker} {boot} {slot} {fence} {call} {work} {note}\n"
        os.write(self._fd, line.encode())


class Reader:
    """Reads on from where it was."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._file = path.open("rb")
        self._unfinished = b""

    def close(self) -> None:
        self._file.close()

    def entries(self) -> Iterator[Entry]:
        """Those that have come since."""
        *lines, self._unfinished = (self._unfinished + self._file.read()).split(b"\n")
        for line in lines:
            at_ns, kind, role, worker, boot, slot, fence, call, work, note = line.decode().split(" ", 9)
            yield Entry(int(at_ns), Kind(kind), role, worker, boot, int(slot), int(fence), call, int(work), note)
