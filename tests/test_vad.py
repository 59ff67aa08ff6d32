import numpy as np
import pytest

from daemons import settings
from daemons.audio import STT_RATE_HZ, FloatSamples
from daemons.models import model_dir
from daemons.vad import WINDOW_SAMPLES, SileroVad, has_speech
from tests.speech_samples import librivox, needs_librivox

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    given = settings.load()
    return SileroVad(model_dir(given, given.vad_model) / "silero_vad.onnx")


def probabilities(vad: SileroVad, samples: FloatSamples) -> list[float]:
    vad.reset()
    last = len(samples) - WINDOW_SAMPLES
    return [vad(samples[at : at + WINDOW_SAMPLES]) for at in range(0, last + 1, WINDOW_SAMPLES)]


@needs_librivox
def test_speech_is_heard_and_the_silence_after_it_is_not(vad: SileroVad) -> None:
    speech = librivox()[1][0]
    heard = probabilities(vad, np.concatenate([speech, np.zeros(STT_RATE_HZ, np.float32)]))
    assert max(heard) > 0.95
    assert np.mean(np.array(heard[: len(speech) // WINDOW_SAMPLES]) > 0.5) > 0.7
    assert max(heard[-15:]) < 0.1


@pytest.mark.parametrize("level", [0.0, 0.001, 0.02, 0.2])
def test_noise_is_no_speech(vad: SileroVad, level: float) -> None:
    noise = (np.random.default_rng(0).standard_normal(3 * STT_RATE_HZ) * level).astype(np.float32)
    assert not has_speech(vad, noise, 200)


@needs_librivox
def test_after_a_reset_the_same_windows_give_the_same_probabilities(vad: SileroVad) -> None:
    speech = librivox()[1][0][: 20 * WINDOW_SAMPLES]
    assert probabilities(vad, speech) == probabilities(vad, speech)


@needs_librivox
def test_a_short_burst_of_speech_is_not_enough(vad: SileroVad) -> None:
    speech = librivox()[1][0]
    assert has_speech(vad, speech, 200)
    assert not has_speech(vad, speech, 60_000)
