from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest

from daemons import wire
from daemons.audio import TTS_RATE_HZ, Samples, read_wav
from daemons.tts import traces
from daemons.tts.traces import Traces
from tests.worker_process import WorkerProcess


@pytest.fixture
async def session(tts: WorkerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(tts.url, timeout=aiohttp.ClientTimeout(30)) as session:
        yield session


async def say(socket: aiohttp.ClientWebSocketResponse, request: int, words: str, trace: str | None) -> Samples:
    for message in (wire.TtsText(id=request, text=words, trace=trace), wire.TtsEnd(id=request)):
        await socket.send_str(message.model_dump_json())
    heard: list[Samples] = []
    while True:
        answer = await socket.receive(timeout=20)
        if answer.type is aiohttp.WSMsgType.BINARY:
            heard.append(np.frombuffer(wire.AudioHeader.split(answer.data)[1], "<i2"))
        elif isinstance(wire.tts_reply.validate_json(answer.data), wire.TtsDone):
            return np.concatenate(heard)


@pytest.mark.integration
async def test_a_trace_holds_what_was_made_under_its_name_and_nothing_else(session: aiohttp.ClientSession) -> None:
    async with session.ws_connect("/tts/live") as socket:
        first = await say(socket, 1, "Hello there.", "call-7.2")
        await say(socket, 2, "Nobody keeps this.", None)
        second = await say(socket, 3, "Goodbye.", "call-7.2")
    async with session.get("/tts/traces/call-7.2.wav") as response:
        assert (response.status, response.content_type) == (200, "audio/wav")
        pcm = read_wav(await response.read())
    assert pcm.rate_hz == TTS_RATE_HZ
    assert np.array_equal(pcm.samples, np.concatenate([first, second]))


@pytest.mark.integration
@pytest.mark.parametrize("trace", ["nobody", "..%2f..%2fetc%2fpasswd"])
async def test_a_trace_that_is_not_kept_is_not_found(session: aiohttp.ClientSession, trace: str) -> None:
    async with session.get(f"/tts/traces/{trace}.wav") as response:
        assert response.status == 404


@pytest.mark.integration
async def test_a_trace_has_a_plain_name(session: aiohttp.ClientSession) -> None:
    async with session.ws_connect("/tts/live") as socket:
        await socket.send_str('{"type": "text", "id": 1, "text": "a", "trace": "../a"}')
        reply = wire.tts_reply.validate_json((await socket.receive(timeout=5)).data)
    assert isinstance(reply, wire.StreamError)
    assert "trace" in reply.message


def test_the_oldest_traces_make_room_for_the_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "KEPT_BYTES", 2000)
    kept = Traces()
    for name in ("a", "b", "b"):
        kept.add(name, np.zeros(400, np.int16))
    assert kept.wav("a") is None
    assert (wav := kept.wav("b")) is not None
    assert len(read_wav(wav).samples) == 800
