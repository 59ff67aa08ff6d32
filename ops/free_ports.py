"""Free ports of this machine, below the range from which the kernel takes those of outgoing connections."""

import random
import socket

FIRST, LAST = 10_000, 32_000
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody holds and that was not given before."""
    return _free(1)


def free_pair() -> int:
    """A port whose next one is free too: a worker's and its health's."""
    return _free(2)


def _free(count: int) -> int:
    while True:
        port = random.randrange(FIRST, LAST)  # noqa: S311 - no secret
        ports = range(port, port + count)
        if _given.isdisjoint(ports) and all(_is_free(one) for one in ports):
            _given.update(ports)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        try:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
