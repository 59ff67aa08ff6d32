import asyncio
import contextlib
import hashlib
import json
import socket as sockets
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
from redis.asyncio import Redis

from daemons import wire
from daemons.audio import TTS_RATE_HZ, Samples, read_wav
from daemons.registry import Registry
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

LONG = "This is one of very many sentences that nobody will ever hear. " * 60


@pytest.fixture
async def session(tts: WorkerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(tts.url, timeout=aiohttp.ClientTimeout(30)) as session:
        yield session


class Heard:
    """What came back for one request: each sample exactly once, each segment before its audio."""

    def __init__(self) -> None:
        self.samples: Samples = np.zeros(0, np.int16)
        self.segments: list[wire.TtsSegment] = []
        self.frames: list[int] = []

    async def until_end(self, socket: aiohttp.ClientWebSocketResponse, request: int) -> wire.TtsDone | wire.StreamError:
        while True:
            message = await socket.receive(timeout=20)
            if message.type is aiohttp.WSMsgType.BINARY:
                header, pcm = wire.AudioHeader.split(message.data)
                if header.id == request:
                    assert header.from_sample == len(self.samples)
                    self.samples = np.concatenate([self.samples, np.frombuffer(pcm, "<i2")])
                    self.frames.append(len(pcm) // 2)
                    assert self.segments, "audio before its segment"
                continue
            assert message.type is aiohttp.WSMsgType.TEXT, message
            reply = wire.tts_reply.validate_json(message.data)
            if reply.id not in (request, None):
                continue
            if not isinstance(reply, wire.TtsSegment):
                return reply
            assert reply.from_sample >= len(self.samples)
            self.segments.append(reply)


async def send(socket: aiohttp.ClientWebSocketResponse, *messages: wire.TtsRequest) -> None:
    for message in messages:
        await socket.send_str(message.model_dump_json())


def error_in(text: str) -> str:
    error: dict[str, Any] = json.loads(text)["error"]
    return str(error["message"])


async def test_text_that_comes_word_by_word_is_spoken_whole(session: aiohttp.ClientSession) -> None:
    text = "Sure, I can help you with that. What is it that you need? Tell me more."
    heard = Heard()
    async with session.ws_connect("/tts/live") as socket:
        for word in text.split():
            await send(socket, wire.TtsText(id=5, text=word + " "))
        await send(socket, wire.TtsEnd(id=5))
        done = await heard.until_end(socket, 5)
    assert isinstance(done, wire.TtsDone)
    assert (done.reason, done.samples) == ("finished", len(heard.samples))
    assert " ".join(segment.text for segment in heard.segments) == text
    assert len(heard.segments) >= 3
    assert sum(segment.samples for segment in heard.segments) == len(heard.samples)
    assert [segment.from_sample for segment in heard.segments[1:]] == [
        segment.from_sample + segment.samples for segment in heard.segments[:-1]
    ]
    assert set(heard.frames[:-1]) == {wire.TTS_FRAME_SAMPLES}
    assert done.ttfa_ms is not None
    assert done.rtf is not None
    assert 0 < done.rtf < 1
    assert set(done.stages) == {"wait_ms", "synthesis_ms", "finishing_ms"}


async def test_the_first_fragment_is_spoken_while_the_rest_is_still_being_written(
    session: aiohttp.ClientSession,
) -> None:
    heard = Heard()
    async with session.ws_connect("/tts/live") as socket:
        await send(socket, wire.TtsText(id=1, text="Once upon a time there was a "))
        message = await socket.receive(timeout=20)
        segment = wire.tts_reply.validate_json(message.data)
        assert isinstance(segment, wire.TtsSegment)
        assert segment.text == "Once upon a time"
        heard.segments.append(segment)
        await send(socket, wire.TtsText(id=1, text="dragon."), wire.TtsEnd(id=1))
        await heard.until_end(socket, 1)
    assert [segment.text for segment in heard.segments] == ["Once upon a time", "there was a dragon."]


async def test_flush_speaks_what_is_buffered(session: aiohttp.ClientSession) -> None:
    async with session.ws_connect("/tts/live") as socket:
        await send(socket, wire.TtsText(id=1, text="One moment"), wire.TtsFlush(id=1))
        segment = wire.tts_reply.validate_json((await socket.receive(timeout=20)).data)
    assert isinstance(segment, wire.TtsSegment)
    assert segment.text == "One moment"


async def test_cancel_ends_the_request_at_once_and_the_next_one_is_served(
    session: aiohttp.ClientSession, tts: WorkerProcess
) -> None:
    async with session.ws_connect("/tts/live") as socket:
        await send(socket, *(wire.TtsText(id=1, text=LONG[:3900]) for _ in range(4)))
        assert (await socket.receive(timeout=20)).type is aiohttp.WSMsgType.TEXT
        await send(socket, wire.TtsCancel(id=1), wire.TtsCancel(id=1), wire.TtsText(id=2, text="Yes."))
        first, second = Heard(), Heard()
        first.segments = [wire.TtsSegment(id=1, text="", from_sample=0, samples=0)]
        done = await first.until_end(socket, 1)
        await send(socket, wire.TtsEnd(id=2))
        assert isinstance(done, wire.TtsDone)
        assert (done.reason, done.samples) == ("cancelled", len(first.samples))
        ended = await second.until_end(socket, 2)
    assert isinstance(ended, wire.TtsDone)
    assert ended.reason == "finished"
    assert await asyncio.to_thread(tts.becomes_idle)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (["no json"], "JSON"),
        (['{"type": "dance", "id": 1}'], "dance"),
        (['{"type": "text", "id": 1, "text": "' + "x" * 4001 + '"}'], "4000"),
        ([b"\0"], "JSON text"),
    ],
)
async def test_bad_messages_end_the_stream_with_a_sentence(
    session: aiohttp.ClientSession, messages: list[str | bytes], reason: str
) -> None:
    async with session.ws_connect("/tts/live") as socket:
        for message in messages:
            await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_str(message))
        reply = wire.tts_reply.validate_json(await socket.receive_str(timeout=5))
        assert isinstance(reply, wire.StreamError)
        assert reply.id is None
        assert reason in reply.message
        assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([wire.TtsEnd(id=9)], "no request 9"),
        ([wire.TtsText(id=9, text="你好。"), wire.TtsEnd(id=9)], "can say nothing"),
        ([wire.TtsText(id=9, text="a"), wire.TtsCancel(id=9), wire.TtsText(id=9, text="b")], "ids must grow"),
        ([wire.TtsText(id=9, text="x" * 4000)] * 6, "20000 characters"),
    ],
)
async def test_a_bad_request_ends_alone(
    session: aiohttp.ClientSession, messages: list[wire.TtsRequest], reason: str
) -> None:
    async with session.ws_connect("/tts/live") as socket:
        await send(socket, *messages)
        heard = Heard()
        heard.segments = [wire.TtsSegment(id=9, text="", from_sample=0, samples=0)]
        reply = await heard.until_end(socket, 9)
        if isinstance(reply, wire.TtsDone):  # of the cancel
            reply = await heard.until_end(socket, 9)
        assert isinstance(reply, wire.StreamError)
        assert reason in reply.message
        await send(socket, wire.TtsText(id=10, text="Still here."), wire.TtsEnd(id=10))
        assert isinstance(await Heard().until_end(socket, 10), wire.TtsDone)


async def test_text_without_anything_to_say_finishes_in_silence(session: aiohttp.ClientSession) -> None:
    async with session.ws_connect("/tts/live") as socket:
        await send(socket, wire.TtsText(id=1, text="😀"), wire.TtsEnd(id=1))
        done = await Heard().until_end(socket, 1)
    assert isinstance(done, wire.TtsDone)
    assert (done.samples, done.ttfa_ms) == (0, None)


async def test_the_same_text_and_seed_give_the_same_bytes(session: aiohttp.ClientSession) -> None:
    digests = set()
    for seed in (0, 0, 1):
        async with session.post("/tts/stream", json={"text": "Every time the same.", "seed": seed}) as response:
            assert response.status == 200
            digests.add(hashlib.sha256(await response.read()).hexdigest())
    assert len(digests) == 2


async def test_a_stream_s_figures_can_be_asked_for(session: aiohttp.ClientSession) -> None:
    async with session.post("/tts/stream", json={"text": "Hello there."}) as response:
        pcm = await response.read()
        stream_id = response.headers["X-Stream-Id"]
    async with session.get(f"/tts/stats/{stream_id}") as response:
        stats = await response.json()
    assert stats["samples"] == len(pcm) // 2
    assert 0 < stats["rtf"] < 1
    async with session.get("/tts/stats/unknown") as response:
        assert response.status == 404


@pytest.mark.parametrize("body", [{}, {"voice": "alloy", "model": "tts-1"}, {"voice": "heart"}])
async def test_openai_s_clients_get_a_wav(session: aiohttp.ClientSession, body: dict[str, str]) -> None:
    asked = {"input": "Hello there.", "response_format": "wav", **body}
    async with session.post("/v1/audio/speech", json=asked) as response:
        assert (response.status, response.content_type) == (200, "audio/wav")
        pcm = read_wav(await response.read())
    assert pcm.rate_hz == TTS_RATE_HZ
    assert 500 < pcm.duration_ms < 3000


async def test_pcm_and_a_streamed_wav_hold_the_same_samples(session: aiohttp.ClientSession) -> None:
    text = "Hello there. This is the second sentence."
    bodies: list[dict[str, object]] = [
        {"response_format": "pcm"},
        {"response_format": "wav", "stream": True},
        {"response_format": "wav"},
    ]
    heard = []
    for body in bodies:
        async with session.post("/v1/audio/speech", json={"input": text, **body}) as response:
            heard.append(await response.read())
    pcm, streamed, whole = heard
    assert streamed[:4] == b"RIFF"
    assert streamed[44:] == pcm == whole[44:]


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/tts/stream", {"text": ""}, "text"),
        ("/tts/stream", {"text": "a", "bogus": 1}, "bogus"),
        ("/tts/stream", {"text": "a", "speaker": "nobody"}, "nobody"),
        ("/tts/stream", {"text": "a", "speed": 9}, "speed"),
        ("/tts/stream", {"text": "x" * 20_001}, "20000"),
        ("/tts/stream", {"text": "你好"}, "can say nothing"),
        ("/tts/stream", {"text": "😀"}, "nothing to say"),
        ("/v1/audio/speech", {"input": "a", "response_format": "aac"}, "response_format"),
        ("/v1/audio/speech", {"input": "a", "voice": "nobody"}, "nobody"),
        ("/v1/audio/speech", {"input": "x" * 4097}, "4096"),
        ("/v1/audio/speech", {}, "input"),
        ("/v1/audio/speech", [], "body"),
        ("/v1/audio/speech", {"input": "a", "speed": "1"}, "speed"),
        ("/v1/audio/speech", {"input": "a", "seed": True}, "seed"),
        ("/v1/audio/speech", {"input": "a", "stream": "true"}, "stream"),
    ],
)
async def test_a_bad_body_is_refused_in_a_sentence(
    session: aiohttp.ClientSession, path: str, body: object, reason: str
) -> None:
    async with session.post(path, json=body) as response:
        assert response.status == 400
        assert reason in error_in(await response.text())


async def test_over_capacity_the_answer_is_busy_and_the_others_are_unharmed(session: aiohttp.ClientSession) -> None:
    async with session.ws_connect("/tts/live") as one, session.ws_connect("/tts/live"):
        async with session.post("/tts/stream", json={"text": "a"}) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            assert "try again" in error_in(await response.text())
        await send(one, wire.TtsText(id=1, text="Hello."), wire.TtsEnd(id=1))
        assert isinstance(await Heard().until_end(one, 1), wire.TtsDone)


@pytest.mark.parametrize("door", ["socket", "stream"])
async def test_a_client_that_goes_stops_the_work_and_frees_its_place(
    session: aiohttp.ClientSession, tts: WorkerProcess, door: str
) -> None:
    made_s = await asyncio.to_thread(tts.metric, "callbox_audio_seconds_total")
    for _ in range(6):  # three times the places there are
        if door == "socket":
            async with session.ws_connect("/tts/live") as socket:
                await send(socket, *(wire.TtsText(id=1, text=LONG[:3900]) for _ in range(4)))
                await socket.receive(timeout=20)
        else:
            async with session.post("/tts/stream", json={"text": LONG}) as response:
                assert response.status == 200
                await response.content.readexactly(1000)
                response.close()
        assert await asyncio.to_thread(tts.becomes_idle)
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.1)
    assert await asyncio.to_thread(tts.metric, "callbox_audio_seconds_total") - made_s < 6 * 60


async def test_a_reader_that_does_not_read_is_sent_two_seconds_and_no_more(tts: WorkerProcess) -> None:
    body = json.dumps({"text": LONG}).encode()
    head = (
        f"POST /tts/stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    made_s = await asyncio.to_thread(tts.metric, "callbox_audio_seconds_total")
    with contextlib.closing(sockets.socket()) as client:
        client.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", tts.port))
        client.sendall(head.encode() + body)
        await asyncio.sleep(3)
        ahead_s = await asyncio.to_thread(tts.metric, "callbox_audio_seconds_total") - made_s
        assert 1 < ahead_s < 12  # two seconds unsent, and the sentence under way
        assert (await asyncio.to_thread(tts.health))["in_flight"] == 0  # waiting for a reader is not work


async def test_a_newer_lease_on_the_slot_aborts_the_older_work(
    session: aiohttp.ClientSession, tts: WorkerProcess, redis_url: str
) -> None:
    worker = f"127.0.0.1:{tts.port}"

    async def lease(registry: Registry, call: str) -> tuple[int, dict[str, str]]:
        granted = await registry.acquire(call, ["tts"], 15_000, 8)
        assert granted.bundle is not None
        assert granted.fence is not None
        member = granted.bundle["tts"]
        assert member.worker == worker
        headers = {wire.CALL_ID: call, wire.SLOT: str(member.slot), wire.FENCE: str(member.fence)}
        return granted.fence, {**headers, wire.BOOT: member.boot}

    async with Redis.from_url(redis_url) as redis:
        registry = Registry(redis)
        held = {call: await lease(registry, call) for call in ("one", "two")}
        async with session.ws_connect("/tts/live", headers=held["one"][1]) as socket:
            await send(socket, wire.TtsText(id=1, text="Hello."), wire.TtsEnd(id=1))
            assert isinstance(await Heard().until_end(socket, 1), wire.TtsDone)
            await registry.release("one", held["one"][0])
            fence, headers = await lease(registry, "three")
            async with session.ws_connect("/tts/live", headers=headers):
                reply = wire.tts_reply.validate_json(await socket.receive_str(timeout=5))
                assert isinstance(reply, wire.StreamError)
                assert "superseded" in reply.message
                assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect("/tts/live", headers=held["one"][1])
        assert refused.value.status == 409
        await registry.release("two", held["two"][0])
        await registry.release("three", fence)


async def test_after_sigterm_open_streams_are_told_and_the_worker_ends_well(
    redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with WorkerProcess("tts", redis_url, tmp_path_factory.mktemp("tts-end")) as worker:
        async with aiohttp.ClientSession(worker.url) as session, session.ws_connect("/tts/live") as socket:
            ending = asyncio.create_task(asyncio.to_thread(worker.end))
            reply = wire.tts_reply.validate_json(await socket.receive_str(timeout=10))
            assert isinstance(reply, wire.StreamError)
            assert "stopping" in reply.message
            await socket.receive(timeout=5)
        assert await ending == 0
