import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from daemons import streams
from daemons.doors import errors_in_words
from daemons.streams import ClientGone, Endings, Outlet, SlowReader, StreamCut, read_json, while_connected

SECOND_BYTES = 48_000  # of PCM16 at 24 kHz


class Body(BaseModel):
    text: str


class Door:
    """A server with the streams under test, and what became of them."""

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.ended: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def flood(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        outlet = Outlet(request)
        try:
            while True:
                await outlet.room()
                await response.write(bytes(1024))
                self.sent_bytes += 1024
        except Exception as error:
            self.ended.set_result(error)
            outlet.abandon()
            return response

    async def think(self, request: web.Request) -> web.Response:
        try:
            async with while_connected(request):
                await asyncio.sleep(30)
        except Exception as error:
            self.ended.set_result(error)
            raise
        return web.Response()

    async def tell(self, request: web.Request) -> web.StreamResponse:
        """An answer that has begun, and is cut short by whatever cancels it."""
        response = web.StreamResponse()
        try:
            async with while_connected(request):
                await response.prepare(request)
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError as error:
                    raise StreamCut(response) from error
        except StreamCut as cut:
            self.ended.set_result(cut)
        return response

    async def read(self, request: web.Request) -> web.Response:
        return web.Response(text=(await read_json(request, Body)).text)


@pytest.fixture
async def door() -> Door:
    return Door()


@pytest.fixture
async def port(door: Door) -> AsyncIterator[int]:
    """Where the door is open, on a server as the runtime's own (aiohttp's test server cancels handlers by itself)."""
    app = web.Application(middlewares=[errors_in_words])
    app.add_routes([web.get("/flood", door.flood), web.get("/think", door.think), web.get("/tell", door.tell)])
    app.add_routes([web.post("/read", door.read)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


def deaf_client(port: int) -> contextlib.closing[socket.socket]:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
    return contextlib.closing(client)


async def test_a_reader_that_does_not_read_gets_two_seconds_and_is_then_closed(
    door: Door, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "NO_PROGRESS_S", 0.5)
    with deaf_client(port):
        started = time.monotonic()
        error = await asyncio.wait_for(door.ended, 10)
    assert isinstance(error, SlowReader)
    assert time.monotonic() - started >= 0.5
    assert 0.5 * SECOND_BYTES < door.sent_bytes <= 2 * SECOND_BYTES


async def test_a_reader_that_reads_slowly_is_kept(door: Door, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "NO_PROGRESS_S", 0.5)
    with deaf_client(port) as client:
        for _ in range(15):
            await asyncio.sleep(0.1)
            client.recv(65536)
        assert not door.ended.done()
    assert isinstance(await asyncio.wait_for(door.ended, 10), ClientGone | ConnectionError)


async def test_a_client_that_goes_cancels_what_is_done_for_it(door: Door, port: int) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(TimeoutError):
            await session.get(f"http://127.0.0.1:{port}/think", timeout=aiohttp.ClientTimeout(total=0.2))
    assert isinstance(await asyncio.wait_for(door.ended, 1), ClientGone)


async def test_an_answer_that_is_cut_short_by_a_client_that_goes_is_ended_by_that(door: Door, port: int) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/tell") as response:
        response.close()
    cut = await asyncio.wait_for(door.ended, 1)
    assert isinstance(cut, StreamCut)
    assert isinstance(cut.__cause__, ClientGone)


@pytest.mark.parametrize(
    ("body", "reason"), [(b"{", "not JSON"), (b"\xff\xfe{", "not JSON"), (b"{}", "text: "), (b'{"text": 1}', "text: ")]
)
async def test_a_bad_body_is_refused_in_a_sentence(port: int, body: bytes, reason: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"http://127.0.0.1:{port}/read", data=body) as response:
        assert response.status == 400
        assert reason in (await response.json())["error"]["message"]


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (None, "finished"),
        (asyncio.CancelledError(), "aborted"),
        (asyncio.CancelledError("cancelled"), "cancelled"),
        (ClientGone(), "client_gone"),
        (SlowReader("slow"), "slow_reader"),
        (ValueError("bug"), "failed"),
    ],
)
def test_each_end_is_counted_by_how_it_came(error: BaseException | None, how: str) -> None:
    metrics = CollectorRegistry()
    endings = Endings(metrics)
    with contextlib.suppress(BaseException), endings.counted():
        if error is not None:
            raise error
    assert metrics.get_sample_value("callbox_streams_ended_total", {"how": how}) == 1
