import threading
import time

import numpy as np
import pytest

from daemons import settings
from daemons.audio import STT_RATE_HZ, FloatSamples
from daemons.models import model_dir
from daemons.stt.engine import ENGINES, SttEngine
from daemons.stt.speech import Transcriber
from daemons.vad import SileroVad
from tests.speech_samples import librivox, needs_librivox, word_error_rate

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> SttEngine:
    engine = ENGINES["moonshine"](settings.load())
    engine.load()
    return engine


@pytest.fixture(scope="module")
def transcriber(engine: SttEngine) -> Transcriber:
    given = settings.load()
    return Transcriber(engine, SileroVad(model_dir(given, given.vad_model) / "silero_vad.onnx"))


def heard(transcriber: Transcriber, samples: FloatSamples) -> str:
    return " ".join(piece.text for piece in transcriber.pieces(samples, threading.Event()))


@needs_librivox
def test_human_speech_is_understood(transcriber: Transcriber) -> None:
    clips = librivox()
    said = " ".join(text for _, text in clips)
    assert word_error_rate(said, " ".join(heard(transcriber, samples) for samples, _ in clips)) < 0.08


@needs_librivox
def test_long_audio_is_cut_into_pieces_that_lose_no_words(transcriber: Transcriber, engine: SttEngine) -> None:
    clips = librivox()
    samples = np.concatenate([samples for samples, _ in clips])
    pieces = list(transcriber.pieces(samples, threading.Event()))
    assert len(pieces) >= 2
    assert all(piece.end_s - piece.start_s <= engine.longest_s for piece in pieces)
    said = " ".join(text for _, text in clips)
    assert word_error_rate(said, " ".join(piece.text for piece in pieces)) < 0.08


def tone(seconds: float) -> FloatSamples:
    samples: FloatSamples = (0.3 * np.sin(np.arange(int(seconds * STT_RATE_HZ)) * 0.1)).astype(np.float32)
    return samples


def noise(seconds: float) -> FloatSamples:
    return (np.random.default_rng(0).standard_normal(int(seconds * STT_RATE_HZ)) * 0.3).astype(np.float32)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.1, 0.5, 3.0])
def test_what_is_no_speech_says_nothing(transcriber: Transcriber, seconds: float) -> None:
    silence = np.zeros(int(seconds * STT_RATE_HZ), np.float32)
    assert [heard(transcriber, samples) for samples in (silence, tone(seconds), noise(seconds))] == ["", "", ""]


def test_without_the_gate_the_engine_invents_words(engine: SttEngine) -> None:
    """Why the gate is there; when this fails, the gate may go."""
    assert engine.transcribe(tone(1), threading.Event()) != ""


@needs_librivox
def test_a_cancel_ends_decoding_at_the_next_step(engine: SttEngine) -> None:
    samples = librivox()[0][0]
    cancelled = threading.Event()
    started = time.monotonic()
    whole = engine.transcribe(samples, cancelled)
    whole_s = time.monotonic() - started
    cancelled.set()
    started = time.monotonic()
    assert engine.transcribe(samples, cancelled) == ""
    assert time.monotonic() - started < 0.75 * whole_s
    assert len(whole.split()) > 15
