"""Which words have been said after so much audio."""

import pytest

from daemons.tts.pace import CHARS_PER_S, Pace

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
CHARS = sum(len(word) + 1 for word in WORDS)


def test_words_are_handed_out_as_they_begin() -> None:
    pace = Pace()
    counts = [pace.words_in(tenth / 10, WORDS) for tenth in range(60)]
    assert counts[:2] == [0, 1], "silence says nothing, and the first sound the first word"
    assert counts == sorted(counts)
    assert counts[-1] == len(WORDS)


def test_words_that_are_not_written_yet_are_not_said() -> None:
    assert Pace().words_in(100, WORDS[:3]) == 3
    assert Pace().words_in(100, []) == 0


@pytest.mark.parametrize("rate", [7.0, 30.0])
def test_a_voice_is_learned(rate: float) -> None:
    pace = Pace()
    for _ in range(30):
        pace.learn(CHARS / rate, WORDS)
    assert pace.chars_per_s == pytest.approx(rate, rel=0.01)
    assert Pace().chars_per_s == CHARS_PER_S
