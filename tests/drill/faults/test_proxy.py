"""The proxy before a real server: an echo, or one that counts what it carried out."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ops.drill.faults.proxy import CLEAR, MAX_CONNECTIONS, Line, Proxy, Replies
from tests.waiting import until

SOON_S = 5.0
SILENT_S = 0.3
MUCH_BYTES = 64 * 2**20


class Echo:
    """Answers each line with itself, and counts them."""

    def __init__(self) -> None:
        self.lines = 0
        self.ends = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.lines += 1
                writer.write(line)
                await writer.drain()
            self.ends += 1
        except ConnectionError:
            self.ends += 1
        finally:
            writer.close()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Proxy, Echo]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy, echo


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def of(cls, proxy: Proxy) -> "AsyncIterator[Client]":
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    async def send(self, text: str) -> None:
        self._writer.write(text.encode() + b"\n")
        await self._writer.drain()

    async def ask(self, text: str) -> str:
        await self.send(text)
        return await self.answer()

    async def answer(self) -> str:
        async with asyncio.timeout(SOON_S):
            return (await self._reader.readline()).decode().rstrip("\n")

    async def hears_nothing(self) -> bool:
        """Neither a byte nor an end."""
        try:
            async with asyncio.timeout(SILENT_S):
                await self._reader.read(1)
        except TimeoutError:
            return True
        return False

    async def is_reset(self) -> bool:
        try:
            async with asyncio.timeout(SOON_S):
                await self._reader.read(1)
        except ConnectionResetError:
            return True
        return False


async def test_what_is_sent_arrives_both_ways_and_so_does_the_end() -> None:
    async with proxied() as (proxy, echo):
        async with Client.of(proxy) as client:
            assert await client.ask("one") == "one"
            assert await client.ask("x" * 60_000) == "x" * 60_000
        await until(lambda: echo.ends == 1, SOON_S)
        await until(lambda: proxy.connections == 0, SOON_S)


async def test_a_cut_resets_the_client_and_the_server_and_the_next_connection_is_well() -> None:
    async with proxied() as (proxy, echo), Client.of(proxy) as client:
        assert await client.ask("one") == "one"
        proxy.cut()
        assert await client.is_reset()
        await until(lambda: echo.ends == 1, SOON_S)
        async with Client.of(proxy) as other:
            assert await other.ask("two") == "two"


async def test_a_server_that_resets_resets_the_client() -> None:
    async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    server = await asyncio.start_server(resets, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy, Client.of(proxy) as client:
        await client.send("one")
        assert await client.is_reset()
        await until(lambda: proxy.connections == 0, SOON_S)


async def test_what_a_server_wrote_before_it_closed_arrives_at_a_client_that_is_slow() -> None:
    async def says_much(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 2**22)
        writer.close()

    server = await asyncio.start_server(says_much, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        await asyncio.sleep(SILENT_S)
        assert len(await asyncio.wait_for(reader.read(), SOON_S)) == 2**22
        writer.close()


async def test_refused_connections_are_reset_and_reach_nobody() -> None:
    async with proxied() as (proxy, echo):
        proxy.line = Line(refuse=True)
        async with Client.of(proxy) as client:
            assert await client.is_reset()
        assert echo.lines == 0


async def test_a_half_open_connection_hears_nothing_for_good_and_a_new_one_is_well() -> None:
    async with proxied() as (proxy, echo), Client.of(proxy) as client:
        assert await client.ask("one") == "one"
        proxy.half_open()
        await client.send("two")
        assert await client.hears_nothing()
        assert echo.lines == 1
        async with Client.of(proxy) as other:
            assert await other.ask("three") == "three"
        await client.send("four")
        assert await client.hears_nothing()


async def test_a_delayed_line_takes_its_time_each_way_and_keeps_the_order() -> None:
    async with proxied() as (proxy, _), Client.of(proxy) as client:
        proxy.line = Line(delay_s=0.1, jitter_s=0.1)
        started_s = time.monotonic()
        for number in range(20):
            await client.send(str(number))
        assert [await client.answer() for _ in range(20)] == [str(number) for number in range(20)]
        assert time.monotonic() - started_s >= 0.2


async def test_what_was_held_arrives_when_the_line_is_clear_also_from_a_client_that_has_gone() -> None:
    async with proxied() as (proxy, echo), Client.of(proxy) as client:
        assert await client.ask("one") == "one"
        async with Client.of(proxy) as other:
            assert await other.ask("two") == "two"
            proxy.line = Line(hold=True)
            await client.send("three")
            await other.send("four")
            assert await client.hears_nothing()
        assert echo.lines == 2
        proxy.line = CLEAR
        assert await client.answer() == "three"
        await until(lambda: echo.lines == 4, SOON_S)


async def test_a_dropped_reply_was_carried_out_and_the_connection_is_reset() -> None:
    async with proxied() as (proxy, echo), Client.of(proxy) as client:
        proxy.line = Line(replies=Replies.RESET)
        await client.send("one")
        assert await client.is_reset()
        assert echo.lines == 1


async def test_a_reply_dropped_in_silence_leaves_a_connection_that_hears_nothing_any_more() -> None:
    async with proxied() as (proxy, echo), Client.of(proxy) as client:
        proxy.line = Line(replies=Replies.SILENCE)
        await client.send("one")
        assert await client.hears_nothing()
        assert echo.lines == 1
        proxy.line = CLEAR
        await client.send("two")
        assert await client.hears_nothing()


async def test_a_throttled_line_carries_no_more_than_its_rate() -> None:
    async with proxied() as (proxy, _), Client.of(proxy) as client:
        proxy.line = Line(bytes_per_s=10_000)
        started_s = time.monotonic()
        assert await client.ask("x" * 3000) == "x" * 3000
        assert time.monotonic() - started_s >= 0.3  # for 3,000 bytes one way


async def test_buffers_are_bounded_for_a_server_that_does_not_read() -> None:
    asleep = asyncio.Event()

    async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asleep.wait()
        writer.close()

    server = await asyncio.start_server(never_reads, "127.0.0.1", 0, limit=1024)
    async with server, Proxy(server.sockets[0].getsockname()[1]) as proxy:
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < MUCH_BYTES:
                writer.write(b"x" * 2**20)
                async with asyncio.timeout(1):
                    await writer.drain()
                sent += 2**20
        writer.transport.abort()
        asleep.set()
    assert sent < MUCH_BYTES


async def test_connections_beyond_the_limit_are_reset() -> None:
    async with proxied() as (proxy, _):
        clients = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(MAX_CONNECTIONS)]
        await until(lambda: proxy.connections == MAX_CONNECTIONS, SOON_S)
        async with Client.of(proxy) as one_too_many:
            assert await one_too_many.is_reset()
        for _, writer in clients:
            writer.close()


async def test_the_proxy_resets_when_the_server_is_away() -> None:
    async with Proxy(1) as proxy, Client.of(proxy) as client:  # nobody listens on port 1
        assert await client.is_reset()
