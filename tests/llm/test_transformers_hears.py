"""The engine on torch, with a tiny model of random weights that hears."""

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from daemons.audio import Pcm, wav_bytes
from daemons.errors import BadRequest
from daemons.llm.generation import Audio, ChatMessage, Generated, Generation
from tests import worker_process
from tests.llm import tiny_models
from tests.llm.test_server import first_text
from tests.worker_process import WorkerProcess

pytest.importorskip("torch", reason="torch is not installed; make an environment from requirements-torch.lock")
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from daemons.llm.engines.transformers import Transformers  # noqa: PLC0415

    folder = tiny_models.listener(tmp_path_factory.mktemp("listener"))
    engine = Transformers(folder, slots=1, context_tokens=2048, threads=1, omni=True)
    engine.load()
    yield engine
    engine.close()


def tone(hz: float, seconds: float = 1.0, rate_hz: int = 16_000) -> Audio:
    samples = np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz) * 8000
    return Audio(base64.b64encode(wav_bytes(Pcm(samples.astype(np.int16), rate_hz))).decode(), "wav")


def about(*parts: str | Audio) -> Generation:
    return Generation(messages=[ChatMessage("user", parts)], max_tokens=16, temperature=0.0, repeat_penalty=1.0)


def run(engine: Any, generation: Generation) -> tuple[str, Generated]:
    pieces: list[str] = []

    def emit(text: str) -> bool:
        pieces.append(text)
        return False

    generated = engine.generate(0, generation, emit)
    return "".join(pieces), generated


def test_it_says_that_it_hears(engine: Any) -> None:
    assert engine.takes == {"text", "audio"}


def test_the_answer_depends_on_what_is_heard(engine: Any) -> None:
    low, generated = run(engine, about("where is ", tone(200)))
    assert generated.prompt_tokens > 20  # a second of sound is 25 tokens
    assert run(engine, about("where is ", tone(200)))[0] == low
    assert run(engine, about("where is ", tone(3000)))[0] != low


def test_what_was_heard_is_never_taken_from_a_cache(engine: Any) -> None:
    for hz in (200, 200, 3000):
        assert run(engine, about("where is ", tone(hz)))[1].cached_tokens == 0


def test_any_sample_rate_is_heard_alike(engine: Any) -> None:
    tokens = [run(engine, about(tone(200, rate_hz=rate_hz)))[1].prompt_tokens for rate_hz in (8000, 16_000, 48_000)]
    assert len(set(tokens)) == 1


def test_several_sounds_in_one_conversation(engine: Any) -> None:
    _, one = run(engine, about(tone(200)))
    _, two = run(engine, about(tone(200), " and ", tone(400, seconds=2)))
    assert two.prompt_tokens > 2 * one.prompt_tokens


def test_text_alone_still_has_its_cache(engine: Any) -> None:
    _, first = run(engine, about("the cat sat"))
    _, again = run(engine, about("the cat sat"))
    assert (first.cached_tokens, again.cached_tokens) == (0, again.prompt_tokens - 1)


def test_reading_ahead_of_sound_does_nothing(engine: Any) -> None:
    text, generated = run(engine, replace(about(tone(200)), max_tokens=0))
    assert (text, generated.completion_tokens) == ("", 0)


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (Audio("AAAA", "mp3"), "wav files, not mp3"),
        (Audio("AAAA", "wav"), "not a PCM WAV file"),
        (tone(200, seconds=31), "more than 30 s"),
    ],
)
def test_what_cannot_be_heard_is_refused(engine: Any, sound: Audio, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        run(engine, about(sound))


@pytest.mark.timeout(300)
async def test_a_whole_worker_hears_and_stops_when_its_client_goes(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "READY_S", 200.0)  # importing torch alone takes ten seconds, and more when busy
    folder = tiny_models.listener(tmp_path / "listener")
    worker = WorkerProcess("llm", redis_url, tmp_path, llm_engine="transformers", llm_model=folder, llm_omni=True)
    await asyncio.to_thread(worker.__enter__)
    try:
        async with aiohttp.ClientSession(worker.url) as http:
            async with http.get("/v1/models") as response:
                [model] = (await response.json())["data"]
            assert model["input_modalities"] == ["audio", "text"]
            sound = {"type": "input_audio", "input_audio": {"data": tone(200).base64, "format": "wav"}}
            body = {"messages": [{"role": "user", "content": [sound]}], "temperature": 0, "repeat_penalty": 1.0}
            async with http.post("/v1/chat/completions", json={**body, "max_tokens": 8}) as response:
                assert (await response.json())["usage"]["prompt_tokens"] > 20
            async with http.post("/v1/chat/completions", json={**body, "max_tokens": 3000, "stream": True}) as response:
                await first_text(response)
                assert (await asyncio.to_thread(worker.health))["in_flight"] == 1
                response.close()
            assert await asyncio.to_thread(worker.becomes_idle)
            assert await asyncio.to_thread(worker.metric_reaches, "callbox_aborted_steps_total", 1)
    finally:
        await asyncio.to_thread(worker.end)
