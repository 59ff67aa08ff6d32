"""A TCP proxy before one server, whose line a drill can spoil: cut, slow, deaf, or losing what comes back."""

import asyncio
import contextlib
import math
import random
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum

CHUNK_BYTES = 16 * 1024
MAX_CHUNKS = 64  # that wait in one direction of one connection; then nothing more is read
MAX_CONNECTIONS = 128
THROTTLE_STEP_S = 0.05
_LINGER_0 = struct.pack("ii", 1, 0)  # close() sends RST


class Replies(Enum):
    PASSED_ON = "passed on"
    RESET = "reset"  # swallowed, then the connection is reset: the request has been carried out
    SILENCE = "silence"  # swallowed, and nothing comes any more


@dataclass(frozen=True, slots=True)
class Line:
    """What happens to the bytes. `hold`: none arrive until it ends, then all do, as after a partition."""

    delay_s: float = 0.0  # each way
    jitter_s: float = 0.0  # at most, on top; the order stays
    bytes_per_s: float = math.inf  # each way
    hold: bool = False
    refuse: bool = False  # new connections are reset
    replies: Replies = Replies.PASSED_ON


CLEAR = Line()


class Proxy:
    """Listens on a loopback port of its own while inside the context; `line` may be changed at any time."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._line = CLEAR
        self._connections: set[_Connection] = set()
        self._may_pass = asyncio.Event()
        self._may_pass.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def line(self) -> Line:
        return self._line

    @line.setter
    def line(self, line: Line) -> None:
        self._line = line
        if line.hold:
            self._may_pass.clear()
        else:
            self._may_pass.set()

    @property
    def connections(self) -> int:
        return len(self._connections)

    def cut(self) -> None:
        """Reset every connection, both ways."""
        for connection in list(self._connections):
            connection.reset()

    def half_open(self) -> None:
        """What is connected now stays so and hears nothing any more; new connections are well."""
        for connection in self._connections:
            connection.deaf = True

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: _reset(writer))  # unless it was closed well

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._line.refuse or len(self._connections) >= MAX_CONNECTIONS:
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(
                "127.0.0.1", self._target_port, limit=CHUNK_BYTES
            )
        except OSError:
            return
        connection = _Connection(writer, server_writer)
        self._connections.add(connection)
        flows = [
            asyncio.create_task(self._flow(connection, reader, server_writer, is_reply=False)),
            asyncio.create_task(self._flow(connection, server_reader, writer, is_reply=True)),
        ]
        try:
            await asyncio.gather(*flows)
            connection.close()
        except OSError:
            pass  # either side went away, or `cut`
        finally:
            for flow in flows:
                flow.cancel()
            connection.reset()
            self._connections.discard(connection)

    async def _flow(
        self, connection: "_Connection", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool
    ) -> None:
        """One direction, until its end has been passed on."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(MAX_CHUNKS)

        async def take() -> None:
            due = 0.0
            try:
                while data := await reader.read(CHUNK_BYTES):
                    line = self._line
                    if is_reply and line.replies is Replies.RESET:
                        connection.reset()
                        break
                    if is_reply and line.replies is Replies.SILENCE:
                        connection.deaf = True
                    if not connection.deaf:
                        due = max(due, loop.time() + line.delay_s + random.uniform(0, line.jitter_s))  # noqa: S311
                        await waiting.put((due, data))
            except OSError:
                connection.reset()
            await waiting.put((due, b""))

        taking = asyncio.create_task(take())
        try:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                await self._may_pass.wait()
                if not data:
                    break
                if not connection.deaf:
                    await self._give(writer, data)
            if connection.deaf:
                connection.reset()
            elif writer.can_write_eof():
                writer.write_eof()
        finally:
            taking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await taking

    async def _give(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        async for piece in self._throttled(data):
            writer.write(piece)
            await writer.drain()

    async def _throttled(self, data: bytes) -> AsyncIterator[bytes]:
        while math.isfinite(rate := self._line.bytes_per_s) and data:
            size = max(1, int(rate * THROTTLE_STEP_S))
            yield data[:size]
            data = data[size:]
            await asyncio.sleep(size / rate)
        if data:
            yield data


class _Connection:
    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.deaf = False  # what arrives is swallowed, for good: TCP would never skip bytes and go on
        self._writers = writers

    def close(self) -> None:
        """What has been written still arrives."""
        for writer in self._writers:
            writer.close()

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    if writer.transport.is_closing():
        return
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    writer.transport.abort()
