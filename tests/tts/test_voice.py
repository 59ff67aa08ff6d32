import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.audio import TTS_RATE_HZ, FloatSamples
from daemons.tts.voice import CEILING, FADE_MS, GAIN_DB, LEAD_MS, TAIL_MS, Limiter, pause_ms, trimmed

GAIN = 10 ** (GAIN_DB / 20)


def tone(seconds: float, level: float) -> FloatSamples:
    at = np.arange(round(seconds * TTS_RATE_HZ))
    samples: FloatSamples = (level * np.sin(2 * np.pi * 220 * at / TTS_RATE_HZ)).astype(np.float32)
    return samples


def test_below_the_ceiling_the_limiter_only_amplifies_and_rounds() -> None:
    samples = tone(0.5, 0.3)
    assert np.array_equal(Limiter()(samples), np.rint(samples.astype(np.float64) * GAIN * 32768))


@given(level=st.floats(0.1, 20), seconds=st.floats(0.001, 0.2))
def test_nothing_passes_the_ceiling(level: float, seconds: float) -> None:
    out = Limiter()(tone(seconds, level))
    assert np.abs(out.astype(int)).max() <= np.ceil(CEILING * 32768)


@given(st.lists(st.integers(0, 4_000), max_size=8))
def test_it_does_not_matter_where_chunks_are_cut(cuts: list[int]) -> None:
    samples = np.concatenate([tone(0.05, 0.2), tone(0.02, 1.5), tone(0.1, 0.3)])[:4_000]
    limiter, ends = Limiter(), sorted(cuts)
    parts = [limiter(samples[a:b]) for a, b in zip([0, *ends], [*ends, len(samples)], strict=True)]
    assert np.abs(np.concatenate(parts).astype(int) - Limiter()(samples).astype(int)).max() <= 1


def test_the_gain_falls_at_once_and_recovers_slowly() -> None:
    """A normaliser that works chunk by chunk would be back at once: that pumps."""
    quiet = tone(0.05, 0.3)
    limiter = Limiter()
    before = np.abs(limiter(quiet)).max()
    loud = limiter(tone(0.05, 2.0))
    just_after = np.abs(limiter(quiet)).max()
    for _ in range(20):
        limiter(quiet)
    much_later = np.abs(limiter(quiet)).max()
    assert np.abs(loud.astype(int)).max() <= np.ceil(CEILING * 32768)
    assert just_after < 0.4 * before
    assert 0.99 * before < much_later <= before


@pytest.mark.parametrize(
    ("text", "ms"), [("Yes.", 260), ('"Stop!"', 260), ("你好。", 260), ("Well,", 120), ("and", 20)]
)
def test_the_pause_is_the_punctuation_s(text: str, ms: int) -> None:
    assert pause_ms(text) == ms


def test_silence_around_the_sound_is_replaced_by_the_pause() -> None:
    silence = np.full(TTS_RATE_HZ // 4, 0.001, np.float32)
    sound = tone(0.5, 0.3)
    out = trimmed(np.concatenate([silence, sound, silence]), "Yes.")
    expected_ms = LEAD_MS + 500 + TAIL_MS + pause_ms("Yes.")
    assert len(out) * 1000 / TTS_RATE_HZ == pytest.approx(expected_ms, abs=5)
    assert not out[-round(pause_ms("Yes.") * TTS_RATE_HZ / 1000) :].any()
    middle = slice(round((LEAD_MS + FADE_MS) * TTS_RATE_HZ / 1000), round(400 * TTS_RATE_HZ / 1000))
    assert np.abs(out[middle]).max() == pytest.approx(0.3, abs=0.01)


def test_the_edges_fade_so_that_no_click_is_heard() -> None:
    out = trimmed(np.full(4_800, 0.3, np.float32), "and")
    assert abs(out[0]) < 0.01
    assert np.abs(np.diff(out)).max() < 0.01


def test_silence_alone_is_nothing() -> None:
    assert len(trimmed(np.zeros(1_000, np.float32), "Hm.")) == 0
