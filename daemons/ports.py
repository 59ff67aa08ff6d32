"""The ports of this machine: taking one exclusively, and who listens on the others."""

import socket
import time
from typing import NamedTuple

import psutil

from daemons.errors import ConfigurationError

BIND_PATIENCE_S = 2.0  # a predecessor that was killed may still be going away


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


def listen(port: int, setting: str) -> socket.socket:
    """Bind exclusively and listen at once, so that nobody else can have the port while a model loads.

    Raises ConfigurationError, which names the port, the setting that moves it and who holds it.
    """
    deadline = time.monotonic() + BIND_PATIENCE_S
    while True:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past TIME_WAIT; not SO_REUSEPORT
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen(128)
        except OSError as error:
            listening.close()
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"port {port} cannot be had ({error.strerror}){_held_by(port)}; {setting} moves it"
                ) from error
            time.sleep(0.1)
        else:
            listening.setblocking(False)
            return listening


def _held_by(port: int) -> str:
    try:
        holder = next((one.holder for one in listeners() if (one.kind, one.port) == ("tcp", port) and one.pid), None)
    except psutil.Error:
        return ""
    return f": held by {holder}" if holder else ""
