import asyncio
import threading
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from daemons import settings
from daemons.audio import STT_RATE_HZ, FloatSamples
from daemons.lane import Lane
from daemons.models import model_dir
from daemons.stt.asked import Asked
from daemons.stt.engines.moonshine import Moonshine
from daemons.stt.speech import Piece, Transcriber
from daemons.stt.stop import Stop
from daemons.stt.threaded import Threaded
from daemons.vad import SileroVad
from tests.speech_samples import librivox, needs_librivox, word_error_rate

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> Moonshine:
    given = settings.load()
    engine = Moonshine(model_dir(given, "moonshine-tiny-en"), threads=1)
    engine.load()
    return engine


@pytest.fixture
async def transcriber(engine: Moonshine) -> AsyncIterator[Transcriber]:
    given, metrics = settings.load(), CollectorRegistry()
    lane = Lane("stt", 1, metrics)
    vad = SileroVad(model_dir(given, given.vad_model) / "silero_vad.onnx")
    yield Transcriber(Threaded(engine, lane, metrics, model="moonshine"), vad, lane)
    await asyncio.to_thread(lane.close)


async def pieces(transcriber: Transcriber, samples: FloatSamples) -> list[Piece]:
    return [piece async for piece in transcriber.pieces(samples, Asked())]


async def heard(transcriber: Transcriber, samples: FloatSamples) -> str:
    return " ".join(piece.text for piece in await pieces(transcriber, samples))


@needs_librivox
async def test_human_speech_is_understood(transcriber: Transcriber) -> None:
    clips = librivox()
    said = " ".join(text for _, text in clips)
    assert word_error_rate(said, " ".join([await heard(transcriber, samples) for samples, _ in clips])) < 0.08


@needs_librivox
async def test_long_audio_is_cut_into_pieces_that_lose_no_words(transcriber: Transcriber, engine: Moonshine) -> None:
    clips = librivox()
    samples = np.concatenate([samples for samples, _ in clips])
    said_in = await pieces(transcriber, samples)
    assert len(said_in) >= 2
    assert all(piece.end_s - piece.start_s <= engine.longest_s for piece in said_in)
    said = " ".join(text for _, text in clips)
    assert word_error_rate(said, " ".join(piece.text for piece in said_in)) < 0.08


def tone(seconds: float) -> FloatSamples:
    samples: FloatSamples = (0.3 * np.sin(np.arange(int(seconds * STT_RATE_HZ)) * 0.1)).astype(np.float32)
    return samples


def noise(seconds: float) -> FloatSamples:
    return (np.random.default_rng(0).standard_normal(int(seconds * STT_RATE_HZ)) * 0.3).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.1, 0.5, 3.0])
async def test_what_is_no_speech_says_nothing(transcriber: Transcriber, seconds: float) -> None:
    silence = np.zeros(int(seconds * STT_RATE_HZ), np.float32)
    assert [await heard(transcriber, samples) for samples in (silence, tone(seconds), noise(seconds))] == ["", "", ""]


def test_without_the_gate_the_engine_invents_words(engine: Moonshine) -> None:
    """Why the gate is there; when this fails, the gate may go."""
    assert engine.transcribe(tone(1), Stop()) != ""


@needs_librivox
@pytest.mark.parametrize(
    "at", [0.0, 0.1, 0.5]
)  # of the time that the whole takes: the encoder's run is its first third
def test_a_stop_ends_the_run_that_is_under_way(engine: Moonshine, at: float) -> None:
    samples = np.concatenate([samples for samples, _ in librivox()])[: int(engine.longest_s * STT_RATE_HZ)]
    whole_s = min(timed(engine, samples, Stop())[1] for _ in range(2))
    stop = Stop()
    stopped_s: list[float] = []

    def set_it() -> None:
        stop.set()
        stopped_s.append(time.monotonic())

    timer = threading.Timer(at * whole_s, set_it)
    timer.start()
    text, took_s = timed(engine, samples, stop)
    ended_s = time.monotonic()
    timer.join()
    assert len(text.split()) < 20
    assert ended_s - stopped_s[0] < 0.5 * whole_s
    assert took_s < whole_s


def timed(engine: Moonshine, samples: FloatSamples, stop: Stop) -> tuple[str, float]:
    began_s = time.monotonic()
    text = engine.transcribe(samples, stop)
    return text, time.monotonic() - began_s


@needs_librivox
async def test_who_is_cancelled_leaves_the_lane_to_the_next(transcriber: Transcriber) -> None:
    samples, words = librivox()[3]
    first = asyncio.create_task(heard(transcriber, np.concatenate([samples] * 4)))
    await asyncio.sleep(0.1)
    first.cancel()
    assert word_error_rate(words, await heard(transcriber, samples)) < 0.15
    assert first.cancelled()
