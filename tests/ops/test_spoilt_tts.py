"""The speech worker that spoils what another says, before a real one."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from redis.asyncio import Redis

from daemons import wire
from daemons.agent.peers import Peers
from daemons.audio import Samples, read_wav
from daemons.clock import SystemClock
from daemons.registry import Holder, Lease, Registry
from ops.lab import live
from ops.lab.spoil import spoilt
from ops.worker import Worker
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

WORDS = "Once upon a time there was a small dragon who was afraid of the dark. Then he saw the moon."
REPLACE_S = 5.0


@pytest.fixture(scope="module")
def tts(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with WorkerProcess("tts", redis_url, tmp_path_factory.mktemp("tts"), direct_slots=4) as worker:
        yield worker


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as session:
        yield session


def spoiling(fault: str, tts: WorkerProcess, redis_url: str, folder: Path) -> Worker:
    return Worker(wire.TTS_LAB, redis_url, folder, ("ops.spoilt_tts", tts.url, fault), slots=1)


@dataclass
class Answer:
    """What came for one request, and how it ended."""

    segments: list[wire.TtsSegment] = field(default_factory=list)
    frames: list[tuple[int, Samples]] = field(default_factory=list)
    done: wire.TtsDone | None = None

    @property
    def samples(self) -> Samples:
        return np.concatenate([samples for _, samples in self.frames])


async def say(
    socket: aiohttp.ClientWebSocketResponse, request: int, words: str, trace: str | None, *, cancel: bool = False
) -> Answer:
    """With `cancel`, once the first audio has come."""
    for asked in (wire.TtsText(id=request, text=words, trace=trace), wire.TtsEnd(id=request)):
        await socket.send_str(asked.model_dump_json())
    answer = Answer()
    while answer.done is None:
        message = await socket.receive(timeout=20)
        if message.type is aiohttp.WSMsgType.BINARY:
            header, pcm = wire.AudioHeader.split(message.data)
            assert header.id == request
            answer.frames.append((header.from_sample, np.frombuffer(pcm, "<i2")))
            if cancel and len(answer.frames) == 1:
                await socket.send_str(wire.TtsCancel(id=request).model_dump_json())
            continue
        reply = wire.tts_reply.validate_json(message.data)
        assert reply.id == request
        if isinstance(reply, wire.TtsSegment):
            answer.segments.append(reply)
        else:
            assert isinstance(reply, wire.TtsDone), reply
            answer.done = reply
    return answer


async def made(http: aiohttp.ClientSession, tts: WorkerProcess, trace: str) -> Samples:
    async with http.get(f"{tts.url}/tts/traces/{trace}.wav") as kept:
        assert kept.status == 200
        return read_wav(await kept.read()).samples


@pytest.mark.parametrize("fault", live.FAULTS)
async def test_what_another_makes_is_said_spoilt_and_kept_as_it_was(
    fault: str, tts: WorkerProcess, redis_url: str, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with spoiling(fault, tts, redis_url, tmp_path) as worker, http.ws_connect(f"{worker.url}/tts/live") as socket:
        answers = [await say(socket, request, WORDS, f"{fault}.{request}") for request in (1, 2)]
    for request, answer in enumerate(answers, 1):
        was = await made(http, tts, f"{fault}.{request}")
        wanted = spoilt(was / 32768, live.spoiler(fault))
        assert len(answer.samples) == len(wanted)
        assert np.max(np.abs(answer.samples / 32768 - wanted.clip(-1, 1))) < 1.01 / 32768
        assert len(was) != len(wanted) or np.max(np.abs(answer.samples / 32768 - was / 32768)) > 0.01

        offsets, sizes = [at for at, _ in answer.frames], [len(samples) for _, samples in answer.frames]
        assert offsets == [0, *np.cumsum(sizes)[:-1]]
        assert set(sizes[:-1]) == {wire.TTS_FRAME_SAMPLES}
        ends = [segment.from_sample + segment.samples for segment in answer.segments]
        assert [segment.from_sample for segment in answer.segments] == [0, *ends[:-1]]
        assert answer.done is not None
        assert (answer.done.reason, answer.done.samples) == ("finished", ends[-1])
        assert ends[-1] == len(answer.samples)


async def test_who_cancels_hears_no_more_and_may_go_on(
    tts: WorkerProcess, redis_url: str, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with (
        spoiling("speed", tts, redis_url, tmp_path) as worker,
        http.ws_connect(f"{worker.url}/tts/live") as socket,
    ):
        cut = await say(socket, 1, WORDS * 10, None, cancel=True)
        assert cut.done is not None
        assert (cut.done.reason, cut.done.samples) == ("cancelled", len(cut.samples))
        whole = await say(socket, 2, WORDS, None)
        assert whole.done is not None
        assert whole.done.reason == "finished"


async def test_an_agent_gets_it_by_its_role_and_another_of_that_role_when_it_is_gone(
    tts: WorkerProcess, redis_url: str, redis: Redis, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    registry = Registry(redis)
    async with AsyncExitStack() as stack:
        lives = {}
        for _ in range(2):
            life = await stack.enter_async_context(AsyncExitStack())
            worker = await life.enter_async_context(spoiling("boom", tts, redis_url, tmp_path))
            lives[f"127.0.0.1:{worker.port}"] = life
        granted = await registry.acquire("call-1", [wire.TTS_LAB])
        assert granted.fence is not None
        holder = Holder(registry, Lease(0, "call-1", granted.fence, granted.bundle, 0), SystemClock())
        peers = Peers(http, holder, REPLACE_S)
        stack.push_async_callback(peers.close)

        async def heard(trace: str) -> Samples:
            speech = await peers.speech("committed", trace)
            await speech.write(WORDS)
            await speech.end()
            return np.concatenate([part async for part in speech if not isinstance(part, wire.TtsSegment)])

        phrase = await peers.render("One moment, please.")
        async with http.post(f"{tts.url}/tts/stream", json={"text": "One moment, please."}) as plain:
            kept_for_others = np.frombuffer(await plain.read(), np.int16)
        assert np.array_equal(phrase, kept_for_others)
        first = holder.bundle[wire.TTS_LAB].worker
        assert not np.array_equal(await heard("call-1.1"), await made(http, tts, "call-1.1"))
        await lives.pop(first).aclose()
        await peers.close()  # its connections are gone with it
        await heard("call-1.2")
        assert {holder.bundle[wire.TTS_LAB].worker} == set(lives)
