"""What processes hold of the machine, as the kernel counts it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

_LINE = re.compile(r"^(\w+):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one process, or of several together.

    `own_bytes` is what they have written themselves and no file can give back: of a leak the whole, of a model that is
    mapped from its file nothing. `files` are all that are open, sockets too.
    """

    resident_bytes: int
    own_bytes: int
    files: int
    threads: int

    @classmethod
    def of(cls, processes: Iterable[psutil.Process], without_ports: Iterable[int] = ()) -> "Footprint":
        """Connections to or from `without_ports` are not counted among the files. Raises psutil.NoSuchProcess."""
        ports, every = frozenset(without_ports), list(processes)
        memory = [_memory_bytes(process) for process in every]
        return cls(
            resident_bytes=sum(one["Rss"] for one in memory),
            own_bytes=sum(one["Anonymous"] + one["Swap"] for one in memory),
            files=sum(process.num_fds() - _connections(process, ports) for process in every),
            threads=sum(process.num_threads() for process in every),
        )


def _memory_bytes(process: psutil.Process) -> dict[str, int]:
    """Exact, unlike what /proc/PID/status and statm say, which lags by some hundred KB."""
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(process.pid) from None
    return {name: int(kb) * 1024 for name, kb in _LINE.findall(text)}


def _connections(process: psutil.Process, ports: frozenset[int]) -> int:
    if not ports:
        return 0
    found = process.net_connections("tcp")
    return sum(one.laddr.port in ports or bool(one.raddr and one.raddr.port in ports) for one in found if one.raddr)
