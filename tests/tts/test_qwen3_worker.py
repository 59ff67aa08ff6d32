"""The speech worker with Qwen3-TTS of tiny chance weights: what it says is noise, of a known shape."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from daemons import wire
from daemons.audio import Samples
from daemons.errors import EXIT_DO_NOT_RESTART, EXIT_FAILED
from daemons.tts.streaming import FAILED
from daemons.tts.voice import Limiter
from tests.lent_torch import lend_torch, needs_torch, run_with_torch
from tests.worker_process import WorkerProcess

FRAME_SAMPLES = 1920
TEXT = "The quick brown fox jumps over the lazy dog."
QUIET = 2  # of int16: what rounding and another order of sums may change

pytestmark = [pytest.mark.integration, needs_torch]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3") / "tiny"
    run_with_torch("-m", "tests.tts.qwen3.checkpoint", folder, "--say", TEXT)
    return folder


@pytest.fixture(scope="module")
def qwen3(redis_url: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(lend_torch(tmp_path_factory.mktemp("lent") / "packages")))
        worker = WorkerProcess(
            *("tts", redis_url, tmp_path_factory.mktemp("tts")),
            tts_engine="qwen3",
            tts_model=checkpoint,
            tts_voice="ryan",
            slots=2,
            direct_slots=2,
        )
    with worker:
        yield worker


@pytest.fixture
async def session(qwen3: WorkerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(qwen3.url) as session:
        yield session


@pytest.fixture(scope="module")
def expected(checkpoint: Path) -> Samples:
    """What the talker and the codec say of TEXT outside of any worker, in one piece; its peaks are limited."""
    return Limiter(gain_db=0)(np.load(checkpoint / "said.npy"))


async def stream(session: aiohttp.ClientSession, text: str = TEXT, seed: int = 0) -> Samples:
    async with session.post("/tts/stream", json={"text": text, "seed": seed}) as response:
        assert response.status == 200, await response.text()
        return np.frombuffer(await response.read(), np.int16)


async def live(session: aiohttp.ClientSession, pieces: list[str], pause_s: float) -> tuple[Samples, str, wire.TtsDone]:
    """What comes of text that is written piece by piece: audio, the words that came with it, and how it ended."""
    async with session.ws_connect("/tts/live") as socket:

        async def write() -> None:
            for piece in pieces:
                await socket.send_str(wire.TtsText(id=1, text=piece).model_dump_json())
                await asyncio.sleep(pause_s)
            await socket.send_str(wire.TtsEnd(id=1).model_dump_json())

        writing = asyncio.create_task(write())
        audio, words = b"", []
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                audio += wire.AudioHeader.split(message.data)[1]
                continue
            reply = wire.tts_reply.validate_json(message.data)
            if isinstance(reply, wire.TtsSegment):
                words.append(reply.text)
            elif isinstance(reply, wire.TtsDone):
                await writing
                return np.frombuffer(audio, np.int16), " ".join(word for word in words if word), reply
            else:
                raise AssertionError(reply)
    raise AssertionError("the stream ended without a word")


def assert_same_sound(heard: Samples, expected: Samples) -> None:
    assert len(heard) == len(expected)
    differ = np.flatnonzero(np.abs(heard.astype(int) - expected) > QUIET)
    assert not len(differ), f"from sample {differ[0]} of {len(expected)} on"


async def test_what_is_heard_is_what_the_networks_say(session: aiohttp.ClientSession, expected: Samples) -> None:
    assert len(expected) % FRAME_SAMPLES == 0
    heard = await stream(session)
    assert_same_sound(heard, expected)
    assert np.abs(heard).max() > 1000, "silence would be the same, too"


@pytest.mark.parametrize("pause_s", [0.0, 0.15])
async def test_text_that_comes_word_by_word_sounds_the_same(
    session: aiohttp.ClientSession, expected: Samples, pause_s: float
) -> None:
    pieces = [f"{word} " for word in TEXT.split()[:-1]] + [TEXT.rsplit(maxsplit=1)[-1]]
    heard, words, done = await live(session, pieces, pause_s)
    assert_same_sound(heard, expected)
    assert words == TEXT, "each word is told once, and in order"
    assert done.reason == "finished"
    assert done.samples == len(heard)
    assert done.rtf is not None
    assert done.stages["synthesis_ms"] > 0


async def test_neighbours_and_seeds(session: aiohttp.ClientSession, expected: Samples) -> None:
    one, other = await asyncio.gather(stream(session), stream(session, "Another text, at the same time.", seed=3))
    assert_same_sound(one, expected)
    again = await stream(session, "Another text, at the same time.", seed=3)
    assert np.array_equal(other, again)
    assert not np.array_equal(again, await stream(session, "Another text, at the same time.", seed=4))


async def test_a_cancelled_request_ends_at_once_and_leaves_its_place(
    session: aiohttp.ClientSession, expected: Samples
) -> None:
    async with session.ws_connect("/tts/live") as socket:
        for number in range(1, 7):
            await socket.send_str(wire.TtsText(id=number, text=f"{TEXT} ").model_dump_json())
            if number % 2:
                assert (await socket.receive(30)).type is aiohttp.WSMsgType.TEXT, "it speaks"
            await socket.send_str(wire.TtsCancel(id=number).model_dump_json())
            while True:
                message = await socket.receive(30)
                if message.type is aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] == "done":
                    assert json.loads(message.data)["reason"] == "cancelled"
                    break
    assert_same_sound(await stream(session), expected)


async def test_requests_that_are_cancelled_before_they_have_begun_leave_their_places(
    session: aiohttp.ClientSession, expected: Samples
) -> None:
    count = 3 * 4  # of all places that there are
    async with session.ws_connect("/tts/live") as socket:
        for number in range(1, count + 1):
            await socket.send_str(wire.TtsText(id=number, text=f"{TEXT} ").model_dump_json())
            await socket.send_str(wire.TtsCancel(id=number).model_dump_json())
        done = 0
        while done < count:
            message = await socket.receive(30)
            done += message.type is aiohttp.WSMsgType.TEXT and json.loads(message.data)["type"] == "done"
        assert_same_sound(await stream(session), expected)


async def test_what_it_cannot_do_is_refused_in_words(session: aiohttp.ClientSession) -> None:
    async with session.post("/tts/stream", json={"text": TEXT, "speed": 2.0}) as response:
        assert response.status == 400
        assert "one speed" in await response.text()
    async with session.post("/tts/stream", json={"text": "***"}) as response:
        assert response.status == 400


async def test_an_engine_that_fails_in_a_step_ends_its_program_so_that_it_is_started_anew(
    redis_url: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that the talker has no embedding for fails in the midst of a step, as a card would that is gone."""
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    tokenizer = json.loads((broken / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["q"] = 5000
    (broken / "tokenizer.json").write_text(json.dumps(tokenizer))
    monkeypatch.setenv("PYTHONPATH", str(lend_torch(tmp_path / "packages")))
    with WorkerProcess("tts", redis_url, tmp_path, tts_engine="qwen3", tts_model=broken, tts_voice="ryan") as worker:
        async with (
            aiohttp.ClientSession(worker.url) as session,
            session.post("/tts/stream", json={"text": "q"}) as response,
        ):
            assert response.status == 503
            assert FAILED in await response.text()
        assert await asyncio.to_thread(worker.wait, 20) == EXIT_FAILED
    assert FAILED in worker.log.read_text()


def test_what_a_device_cannot_do_is_refused_in_words(
    redis_url: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(lend_torch(tmp_path / "packages")))
    worker = WorkerProcess(
        *("tts", redis_url, tmp_path), tts_engine="qwen3", tts_model=checkpoint, tts_quantization="fp8"
    )
    worker.start()
    try:
        assert worker.wait(60) == EXIT_DO_NOT_RESTART
    finally:
        worker.end()
    assert "fp8 wants a graphics card; on cpu there is int8" in worker.log.read_text()
