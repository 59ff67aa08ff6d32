from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.audio import TTS_RATE_HZ, FloatSamples, Samples, level_dbfs, to_int16
from daemons.tts.engine import Phrase
from daemons.tts.voice import (
    CEILING,
    FADE_MS,
    GAIN_DB,
    LEAD_MS,
    OPEN_TAIL_MS,
    PAUSE_AFTER_CLAUSE_MS,
    PAUSE_AFTER_SENTENCE_MS,
    SILENCE,
    TAIL_MS,
    Joiner,
    Limiter,
    pause_ms,
)

GAIN = 10 ** (GAIN_DB / 20)
OVERLAP = 480


def tone(seconds: float, level: float) -> FloatSamples:
    at = np.arange(round(seconds * TTS_RATE_HZ))
    samples: FloatSamples = (level * np.sin(2 * np.pi * 220 * at / TTS_RATE_HZ)).astype(np.float32)
    return samples


def ms(samples: FloatSamples | int) -> float:
    return (samples if isinstance(samples, int) else len(samples)) * 1000 / TTS_RATE_HZ


def surrounded(sound: FloatSamples) -> FloatSamples:
    """As engines give it."""
    silence = np.full(TTS_RATE_HZ // 4, 0.001, np.float32)
    return np.concatenate([silence, sound, silence])


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


def steps_db(scale: Callable[[FloatSamples], Samples]) -> list[float]:
    """How the level steps where chunks of 50 ms meet, while speech that became loud is steady again."""
    chunks = [tone(0.05, 0.3), tone(0.05, 2.0), *[tone(0.05, 0.3)] * 10]
    scaled = [scale(chunk) for chunk in chunks]
    given_db = [level_dbfs(to_int16(chunk * np.float32(0.25))) for chunk in chunks]
    edge = TTS_RATE_HZ // 100
    gains_db = [
        (level_dbfs(out[:edge]) - level, level_dbfs(out[-edge:]) - level)
        for out, level in zip(scaled, given_db, strict=True)
    ]
    return [abs(later[0] - earlier[1]) for earlier, later in pairwise(gains_db[1:])]


def chunk_by_chunk(samples: FloatSamples) -> Samples:
    """What the limiter is there instead of: a gain for each chunk."""
    peak = float(np.abs(samples).max()) * GAIN
    return to_int16((samples * GAIN * min(1.0, CEILING / peak)).astype(np.float32))


def test_the_gain_falls_at_once_and_recovers_slowly() -> None:
    assert max(steps_db(Limiter())) < 0.5


def test_a_normaliser_of_chunks_would_pump() -> None:
    assert max(steps_db(chunk_by_chunk)) > 6


def test_the_limiter_is_back_after_a_while_and_not_before() -> None:
    quiet = tone(0.05, 0.3)
    limiter = Limiter()
    before = np.abs(limiter(quiet)).max()
    limiter(tone(0.05, 2.0))
    just_after = np.abs(limiter(quiet)).max()
    for _ in range(20):
        limiter(quiet)
    assert just_after < 0.4 * before
    assert 0.99 * before < np.abs(limiter(quiet)).max() <= before


def truncated(samples: FloatSamples) -> Samples:
    return (samples * 32768).astype(np.int16)


@pytest.mark.parametrize(("convert", "is_clean"), [(to_int16, True), (truncated, False)])
def test_samples_are_rounded_and_not_truncated(convert: Callable[[FloatSamples], Samples], is_clean: bool) -> None:
    """Truncated, a soft sound loses half a step towards zero on either side: distortion, 6 dB above rounding's."""
    soft = tone(0.5, 20 / 32768)
    error = convert(soft) - soft.astype(np.float64) * 32768
    assert (np.abs(error).max() <= 0.5) == is_clean
    assert (np.sqrt(np.mean(error**2)) < 0.3) == is_clean  # rounding: 1/√12
    limited = Limiter()(soft) - soft.astype(np.float64) * GAIN * 32768
    assert np.abs(limited).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        (Phrase("Yes."), PAUSE_AFTER_SENTENCE_MS),
        (Phrase('"Stop!"'), PAUSE_AFTER_SENTENCE_MS),
        (Phrase("你好。"), PAUSE_AFTER_SENTENCE_MS),
        (Phrase("Well,", after=""), PAUSE_AFTER_CLAUSE_MS),
        (Phrase("One moment"), PAUSE_AFTER_CLAUSE_MS),
        (Phrase("The next train", after="to Boston"), 0),
    ],
)
def test_the_pause_is_the_punctuation_s(phrase: Phrase, expected: int) -> None:
    assert pause_ms(phrase) == expected


def test_silence_around_the_sound_is_replaced_by_the_pause() -> None:
    out = Joiner(0)(surrounded(tone(0.5, 0.3)), Phrase("Yes."))
    assert ms(out) == pytest.approx(LEAD_MS + 500 + TAIL_MS + PAUSE_AFTER_SENTENCE_MS, abs=5)
    assert not out[-round(PAUSE_AFTER_SENTENCE_MS * TTS_RATE_HZ / 1000) :].any()
    middle = slice(round((LEAD_MS + FADE_MS) * TTS_RATE_HZ / 1000), round(400 * TTS_RATE_HZ / 1000))
    assert np.abs(out[middle]).max() == pytest.approx(0.3, abs=0.01)


def test_the_edges_fade_so_that_no_click_is_heard() -> None:
    out = Joiner(0)(np.full(4_800, 0.3, np.float32), Phrase("and", after=""))
    assert abs(out[0]) < 0.01
    assert abs(out[-1]) < 0.01
    assert np.abs(np.diff(out)).max() < 0.01


def test_an_engine_that_cannot_join_gets_a_short_gap_within_a_sentence() -> None:
    out = Joiner(0)(surrounded(tone(0.5, 0.3)), Phrase("The next train", after="to Boston"))
    assert ms(out) == pytest.approx(LEAD_MS + 500 + OPEN_TAIL_MS, abs=5)


def test_silence_alone_is_nothing() -> None:
    assert len(Joiner(OVERLAP)(np.zeros(1_000, np.float32), Phrase("Hm."))) == 0


def test_the_parts_of_a_sentence_are_joined_without_a_seam() -> None:
    """As an engine gives them that hears how a phrase goes on: half of the overlap on either side of the border."""
    whole = tone(1.0, 0.3)
    cuts, half = (9_000, 15_000), OVERLAP // 2
    joiner = Joiner(OVERLAP)
    joined = np.concatenate(
        [
            joiner(np.concatenate([np.zeros(5_000, np.float32), whole[: cuts[0] + half]]), Phrase("a b", after="c")),
            joiner(whole[cuts[0] - half : cuts[1] + half], Phrase("c d", before="a b", after="e")),
            joiner(np.concatenate([whole[cuts[1] - half :], np.zeros(5_000, np.float32)]), Phrase("e.", before="c d")),
        ]
    )
    lead = round(LEAD_MS * TTS_RATE_HZ / 1000)
    inner = slice(1_000, len(whole) - 1_000)
    shift = int(np.argmax(np.abs(whole) > SILENCE))
    assert np.abs(joined[lead - shift :][: len(whole)][inner] - whole[inner]).max() < 1e-6
    assert ms(joined) == pytest.approx(LEAD_MS + 1000 + TAIL_MS + PAUSE_AFTER_SENTENCE_MS, abs=5)


@pytest.mark.parametrize("following", [Phrase("Yes."), Phrase("Yes,", after="")])
def test_what_another_sentence_follows_ends_with_a_pause(following: Phrase) -> None:
    joiner = Joiner(OVERLAP)
    first = joiner(tone(0.5, 0.3), Phrase("I am here,", after=""))
    second = joiner(surrounded(tone(0.5, 0.3)), following)
    assert ms(first) == pytest.approx(500 - ms(OVERLAP), abs=1)
    pause = second[OVERLAP:][: round(PAUSE_AFTER_CLAUSE_MS * TTS_RATE_HZ / 1000)]
    assert not pause.any()
    assert np.abs(np.diff(second[: OVERLAP + 10])).max() < 0.03


def test_what_nothing_follows_ends_softly() -> None:
    joiner = Joiner(OVERLAP)
    joiner(tone(0.5, 0.3), Phrase("I am here,", after=""))
    ended = joiner.end()
    assert ms(ended) == pytest.approx(ms(OVERLAP) + PAUSE_AFTER_CLAUSE_MS, abs=1)
    assert np.abs(np.diff(ended)).max() < 0.03
    assert len(joiner.end()) == 0


def test_a_part_that_is_silent_ends_its_sentence() -> None:
    joiner = Joiner(OVERLAP)
    joiner(tone(0.5, 0.3), Phrase("I am here", after="…"))
    ended = joiner(np.zeros(2_000, np.float32), Phrase("…", before="I am here"))
    assert ms(ended) == pytest.approx(ms(OVERLAP) + PAUSE_AFTER_CLAUSE_MS, abs=1)


def test_a_part_that_is_shorter_than_the_overlap_is_joined_too() -> None:
    joiner = Joiner(OVERLAP)
    joiner(tone(0.5, 0.3), Phrase("I am", after="so"))
    assert len(joiner(tone(0.01, 0.3), Phrase("so", before="I am", after="x"))) == OVERLAP
    assert len(joiner(tone(0.01, 0.3), Phrase("x.", before="so"))) > OVERLAP
