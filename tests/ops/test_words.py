import jiwer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.words import WordErrors, plain

WORDS = st.lists(st.sampled_from(["a", "b", "c", "dog"]), min_size=1, max_size=12).map(" ".join)


@given(said=WORDS, heard=WORDS)
def test_the_rate_is_jiwer_s(said: str, heard: str) -> None:
    assert WordErrors.between(said, heard).rate == pytest.approx(jiwer.wer(said, heard))


def test_spelling_is_no_error() -> None:
    assert plain("Mr. Smith's well-known: it’s 5!") == ["mister", "smith's", "well", "known", "it", "s", "5"]


def test_rates_of_several_are_weighed_by_their_words() -> None:
    assert (WordErrors(1, 2) + WordErrors(0, 8)).rate == 0.1
    assert WordErrors.between("", "you").rate == 1
    assert WordErrors.between("", "").rate == 0
