import numpy as np
import pytest

from daemons.errors import ConfigurationError
from daemons.settings import Settings
from daemons.tts.engine import ENGINES, TtsEngine
from daemons.tts.engines.hibari import Hibari
from daemons.tts.voice import LEAD_MS, SILENCE, trimmed

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> TtsEngine:
    engine = ENGINES["hibari"](Settings())
    engine.load()
    return engine


def say(engine: TtsEngine, text: str, *, seed: int = 0, speed: float = 1.0) -> "np.typing.NDArray[np.float32]":
    return np.concatenate([np.zeros(0, np.float32), *engine.synthesize(text, seed=seed, speed=speed)])


def test_the_same_seed_gives_the_same_samples(engine: TtsEngine) -> None:
    text = "The same words, twice."
    assert np.array_equal(say(engine, text), say(engine, text))
    assert not np.array_equal(say(engine, text), say(engine, text, seed=1))


def test_speed_is_speed(engine: TtsEngine) -> None:
    text = "This sentence takes about two seconds."
    assert len(say(engine, text, speed=1.5)) < 0.8 * len(say(engine, text))


def test_what_the_voice_cannot_say_gives_no_samples(engine: TtsEngine) -> None:
    assert len(say(engine, "你好")) == 0


def test_the_leading_silence_is_trimmed(engine: TtsEngine) -> None:
    for text in ("Hello.", "Sure, I can help you", "What is your name?"):
        raw = say(engine, text)
        before_ms = np.flatnonzero(np.abs(raw) > SILENCE)[0] / 24
        after_ms = np.flatnonzero(np.abs(trimmed(raw, text)) > SILENCE)[0] / 24
        assert before_ms > 150  # what the trimming is for
        assert after_ms <= LEAD_MS + 5


@pytest.mark.parametrize("voice", ["nobody", "emma"])
def test_a_voice_that_is_not_here_is_named_and_not_fetched(
    voice: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("HIBARI_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match=voice):
        Hibari(voice, 1).load()
