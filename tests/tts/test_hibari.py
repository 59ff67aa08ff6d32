import numpy as np
import pytest

from daemons.audio import FloatSamples
from daemons.errors import ConfigurationError
from daemons.settings import Settings
from daemons.tts.engine import ENGINES, Phrase, TtsEngine
from daemons.tts.engines.hibari import Hibari
from daemons.tts.voice import LEAD_MS, SILENCE, without_lead

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def engine() -> TtsEngine:
    engine = ENGINES["hibari"](Settings())
    engine.load()
    return engine


def say(engine: TtsEngine, said: str | Phrase, *, seed: int = 0, speed: float = 1.0) -> FloatSamples:
    phrase = Phrase(said) if isinstance(said, str) else said
    return np.concatenate([np.zeros(0, np.float32), *engine.synthesize(phrase, seed=seed, speed=speed)])


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
        after_ms = np.flatnonzero(np.abs(without_lead(raw)) > SILENCE)[0] / 24
        assert before_ms > 150  # what the trimming is for
        assert after_ms <= LEAD_MS + 5


def test_what_follows_is_said_as_in_the_whole_sentence(engine: TtsEngine) -> None:
    """Sample for sample: it is the end of the very same rendering."""
    whole = say(engine, "The next train to Boston leaves at six.")
    rest = say(engine, Phrase("to Boston leaves at six.", before="The next train"))
    assert 0.3 * len(whole) < len(rest) < 0.8 * len(whole)
    assert np.array_equal(rest, whole[-len(rest) :])


def test_an_open_phrase_ends_where_the_next_word_would_begin(engine: TtsEngine) -> None:
    alone = say(engine, "The next train")
    opened = say(engine, Phrase("The next train", after="to Boston"))
    silent_after_ms = [(len(said) - 1 - np.flatnonzero(np.abs(said) > SILENCE)[-1]) / 24 for said in (alone, opened)]
    assert silent_after_ms[0] > 150
    assert silent_after_ms[1] < 60


def test_nothing_of_what_follows_is_heard(engine: TtsEngine) -> None:
    """The words after an open end change its melody, and hardly its length."""
    lengths = [len(say(engine, Phrase("My name is Callbox", after=after))) for after in ("", "and", "and I am here")]
    assert max(lengths) < 1.25 * min(lengths)


def test_a_part_the_voice_cannot_say_gives_no_samples(engine: TtsEngine) -> None:
    assert len(say(engine, Phrase("你好", before="Hello", after="there"))) == 0


@pytest.mark.parametrize("voice", ["nobody", "emma"])
def test_a_voice_that_is_not_here_is_named_and_not_fetched(
    voice: str, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("HIBARI_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match=voice):
        Hibari(voice, 1).load()
