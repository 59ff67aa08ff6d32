"""A client down to its socket, that can stop at any byte and go away in any manner."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Mapping
from enum import StrEnum

from ops.drill.disconnects.doors import Door, Post, Said, Socket

RECEIVE_BYTES = 4096
ROOM_BYTES = 16 * 1024  # of the kernel, for what was not read yet; it takes twice that
KEPT_BYTES = 4096
HALF_CLOSED_S = 2.0
CLOSE_S = 2.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time left: closing sends RST
_TEXT, _BINARY, _CLOSE = 1, 2, 8
_NORMAL = struct.pack("!H", 1000)


class Manner(StrEnum):
    CLOSE = "close"  # of a WebSocket: with its closing handshake
    DROP = "drop"
    RESET = "reset"
    HALF_CLOSE = "half-close"
    SILENCE = "silence, then reset"


class Client:
    """One connection. `head` and `tail` are the first and the last bytes that came, of `received_bytes` in all.

    Each operation raises ConnectionError when the worker has closed or reset the connection.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM_BYTES)
        self.head = b""
        self.tail = b""
        self.received_bytes = 0
        self.is_at_end = False

    async def connect(self, port: int) -> None:
        await asyncio.get_running_loop().sock_connect(self._socket, ("127.0.0.1", port))

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self) -> bytes:
        """What came; nothing at the end."""
        data = await asyncio.get_running_loop().sock_recv(self._socket, RECEIVE_BYTES)
        self.received_bytes += len(data)
        self.head = (self.head + data)[:KEPT_BYTES] if len(self.head) < KEPT_BYTES else self.head
        self.tail = (self.tail + data)[-KEPT_BYTES:]
        self.is_at_end = not data
        return data

    async def receive_all(self) -> None:
        while await self.receive():
            pass

    async def leave(self, manner: Manner, silence_s: float = 0.0) -> None:
        """Go away, within a bounded time. `silence_s` goes before the reset of who has stopped to read."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            match manner:
                case Manner.CLOSE if self.head.startswith(b"HTTP/1.1 101 "):
                    async with asyncio.timeout(CLOSE_S):
                        await self.send(_frame(_CLOSE, _NORMAL))
                        await self.receive_all()
                case Manner.HALF_CLOSE:
                    self._socket.shutdown(socket.SHUT_WR)
                    async with asyncio.timeout(HALF_CLOSED_S):
                        await self.receive_all()
                case Manner.SILENCE:
                    await asyncio.sleep(silence_s)
        if manner in (Manner.RESET, Manner.SILENCE):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.gone()

    def gone(self) -> None:
        self._socket.close()


def head_of(door: Door, port: int, headers: Mapping[str, str]) -> bytes:
    """The request up to its body; a WebSocket's whole handshake."""
    own = {"Host": f"127.0.0.1:{port}", **headers}
    if isinstance(door, Post):
        own |= {"Connection": "close", "Content-Type": door.content_type, "Content-Length": str(len(door.body))}
    else:
        own |= {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        own |= {"Sec-WebSocket-Key": "Y2FsbGJveCBkcmlsbCBrZQ=="}
    lines = [f"{'POST' if isinstance(door, Post) else 'GET'} {door.path} HTTP/1.1"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in own.items()), "", ""]).encode()


def frames_of(door: Socket) -> list[bytes]:
    return [framed(message) for message in door.messages]


def framed(message: Said) -> bytes:
    return _frame(_TEXT, message.encode()) if isinstance(message, str) else _frame(_BINARY, message)


def _frame(kind: int, payload: bytes) -> bytes:
    """RFC 6455, 5.2. Clients must mask; a mask of zeros leaves the payload as it is."""
    if len(payload) < 126:
        length = struct.pack("!B", 0x80 | len(payload))
    elif len(payload) < 2**16:
        length = struct.pack("!BH", 0x80 | 126, len(payload))
    else:
        length = struct.pack("!BQ", 0x80 | 127, len(payload))
    return bytes([0x80 | kind]) + length + bytes(4) + payload
