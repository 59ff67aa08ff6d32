"""Who listens on this machine, and what would stand in the way of the box."""

import socket
from collections.abc import Iterator
from typing import NamedTuple

import psutil

from daemons.settings import PREFIX, Settings
from ops.programs import Program


class Listener(NamedTuple):
    kind: str  # "tcp" or "udp"
    address: str
    port: int
    pid: int | None  # None when this user may not know

    @property
    def holder(self) -> str:
        if self.pid is None:
            return "a process of another user"
        try:
            command = " ".join(psutil.Process(self.pid).cmdline())[:100]
        except psutil.Error:
            command = "gone by now"
        return f"process {self.pid} ({command})"


def listeners() -> list[Listener]:
    """Every TCP socket that listens and every UDP socket that is bound, on any address."""
    found = []
    for connection in psutil.net_connections("inet"):
        if not connection.laddr:
            continue
        udp = connection.type == socket.SOCK_DGRAM
        if (udp and not connection.raddr) or (not udp and connection.status == psutil.CONN_LISTEN):
            kind = "udp" if udp else "tcp"
            found.append(Listener(kind, connection.laddr.ip, connection.laddr.port, connection.pid))
    return found


def taken(settings: Settings, programs: tuple[Program, ...], ours: set[int]) -> Iterator[str]:
    """A sentence for each port that the programs need and a process that is none of ours holds."""
    held = {(listener.kind, listener.port): listener for listener in listeners() if listener.pid not in ours}
    for program in programs:
        for kind, setting, offset in program.ports:
            port = getattr(settings, setting) + offset
            if listener := held.get((kind, port)):
                yield (
                    f"port {port}/{kind}, which {program.name} needs, is held by {listener.holder}; "
                    f"end that, or move {program.name} with {PREFIX}{setting.upper()}"
                )
