import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from daemons import streams, wire
from daemons.admission import Work
from daemons.audio import TTS_RATE_HZ
from daemons.health import Block
from daemons.lane import Lane
from daemons.settings import Settings
from daemons.streams import Endings, Outlet, serve_socket
from daemons.tts import vibevoice
from daemons.tts.engine import ENGINES
from daemons.tts.live import LiveTts
from daemons.tts.phrases import PhraseVoice
from daemons.tts.resume import RecentStreams
from daemons.tts.speech import SpeechMetrics
from daemons.tts.vibevoice import VibeVoiceStream
from tests.tts.vibevoice import VibeVoiceClient

pytestmark = pytest.mark.integration

LONG = "This is one of very many sentences that nobody will ever hear. " * 60
WORST_UNREAD_S = 60  # what the client's own library takes before it stops reading, and one sentence


@pytest.fixture
def metrics() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def port(metrics: CollectorRegistry) -> AsyncIterator[int]:
    """/tts/live and /stream with the real engine, in this process, so that their patience can be made short."""
    lane = Lane("tts", 1, metrics)
    voice = PhraseVoice(ENGINES["hibari"](Settings()), lane, SpeechMetrics(metrics))
    await voice.load()
    endings = Endings(metrics)

    async def live(request: web.Request) -> web.StreamResponse:
        door = web.WebSocketResponse(timeout=0.2, compress=False)
        await door.prepare(request)
        outlet = Outlet(request)
        work = Work(0, None, Block())
        await serve_socket(door, outlet, LiveTts(door, outlet, lambda _: voice.speech(work), endings).run())
        return door

    async def stream(request: web.Request) -> web.StreamResponse:
        door = web.WebSocketResponse(timeout=0.2, compress=False, autoclose=False)
        await door.prepare(request)
        work = Work(0, None, Block())
        outlet, recent = Outlet(request), RecentStreams()
        await VibeVoiceStream(door, outlet, voice, recent, endings, lambda: contextlib.nullcontext(work)).run(
            request.query
        )
        return door

    app = web.Application()
    app.add_routes([web.get("/tts/live", live), web.get("/stream", stream)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()
    await asyncio.to_thread(lane.close)


async def until_given_up(metrics: CollectorRegistry) -> float:
    """The seconds of audio made until the reader was found too slow."""
    for _ in range(400):
        await asyncio.sleep(0.05)
        if metrics.get_sample_value("callbox_streams_ended_total", {"how": "slow_reader"}):
            break
    made_s = metrics.get_sample_value("callbox_audio_seconds_total")
    assert made_s is not None
    return made_s


def small_socket(_: object) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    return made


async def test_a_socket_that_is_not_read_pauses_the_voice_and_is_closed_with_a_reason(
    port: int, metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "NO_PROGRESS_S", 1.0)
    connector = aiohttp.TCPConnector(socket_factory=small_socket)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(f"ws://127.0.0.1:{port}/tts/live") as client,
    ):
        for _ in range(5):
            await client.send_str(wire.TtsText(id=1, text=LONG[:3900]).model_dump_json())
        assert 2 < await until_given_up(metrics) < WORST_UNREAD_S
        last = ""
        while (message := await client.receive(timeout=5)).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            if message.type is aiohttp.WSMsgType.TEXT:
                last = message.data
        reply = wire.tts_reply.validate_json(last)
        assert isinstance(reply, wire.StreamError)
        assert "nothing was read" in reply.message
        assert client.close_code == aiohttp.WSCloseCode.TRY_AGAIN_LATER


async def test_the_frames_of_a_long_sentence_let_others_in_between(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, sent_in = 0, []
    send = web.WebSocketResponse.send_bytes

    async def noted_send(door: web.WebSocketResponse, data: bytes) -> None:
        sent_in.append(rounds)
        await send(door, data)

    async def count_rounds_of_the_loop() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(web.WebSocketResponse, "send_bytes", noted_send)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"ws://127.0.0.1:{port}/tts/live") as client,
    ):
        counting = asyncio.create_task(count_rounds_of_the_loop())
        await client.send_str(wire.TtsText(id=1, text=LONG[:128]).model_dump_json())
        await client.send_str(wire.TtsEnd(id=1).model_dump_json())
        while not ((message := await client.receive()).type is aiohttp.WSMsgType.TEXT and '"done"' in message.data):
            pass
        counting.cancel()
    assert len(sent_in) > 100
    assert len(set(sent_in)) == len(sent_in), "no two frames in one round of the loop"


async def test_a_stream_that_is_not_read_pauses_too_and_says_in_its_own_words_why_it_ends(
    port: int, metrics: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "NO_PROGRESS_S", 1.0)
    connector = aiohttp.TCPConnector(socket_factory=small_socket)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(f"ws://127.0.0.1:{port}/stream", params={"text": LONG}) as socket,
    ):
        client = VibeVoiceClient(socket)
        await client.begin()
        assert 2 < await until_given_up(metrics) < WORST_UNREAD_S
        heard = await client.end()
    assert [event for event, _ in heard.ends] == ["backend_error", "backend_stream_complete"]
    assert "nothing was read" in heard.ends[0][1]["message"]
    assert heard.close[0] == aiohttp.WSCloseCode.TRY_AGAIN_LATER


async def test_a_stream_is_never_further_ahead_of_its_listener_than_a_browser_bears(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vibevoice, "AHEAD_S", 1.0)
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"ws://127.0.0.1:{port}/stream", params={"text": LONG[:128]}) as socket,
    ):
        client = VibeVoiceClient(socket)
        await client.begin()
        before_s = time.monotonic()
        while await client.frame():
            ahead_s = len(client.heard.samples) / TTS_RATE_HZ - (time.monotonic() - before_s)
            assert ahead_s < 1.1
    assert len(client.heard.samples) > 3 * TTS_RATE_HZ
