"""How long the agent waits after what; the texts are as Moonshine writes them."""

import itertools

import pytest

from daemons.agent.ending import Waits, Words, endpoint_ms, words

WAITS = Waits(shortest_ms=200, longest_ms=1500)


@pytest.mark.parametrize(
    "text",
    [
        "What's the weather like today?",
        "Turn off the lights.",
        "I'd like to book a table for four.",
        "It's at five.",
        "I was born in 1985.",
        "Meet me at 5:30.",
        "It costs $12.50.",
        "About 1,500.",
        "I think so.",
        "Yes, it is.",
        "Yes, that is.",
        "That's what I would like.",
        "I don't want to.",
        "Where are you from?",
        "Who is it for?",
        "She needs someone to talk to.",
        "Stop!",
        "Yes",
        "No,",
        "Okay.",
        "Hello?",
    ],
)
def test_finished(text: str) -> None:
    assert words(text) is Words.FINISHED


@pytest.mark.parametrize(
    "text",
    [
        "I would like to book a table for",
        "I'm not having crashes at the moment, so.",
        "So what I'm having is.",
        "Thomas Piketty, in his,",
        "The answer that comes back is,",
        "It argues for a.",
        "I called because",
        "Um.",
        "I'd like, uh,",
        "And that's",
        "Could you, you know,",
        "Then I...",
        "Well, it was -",
        "My wife and I",
    ],
)
def test_unfinished(text: str) -> None:
    assert words(text) is Words.UNFINISHED


@pytest.mark.parametrize(
    "text",
    [
        "Five, five, five, zero, one.",
        "Eight six.",
        "My number is 555 01",
        "It's 0171-20",
        "5, 5, 5,",
        "(212) 555-0",
        "That's G. O. P.",
        "B, O, B,",
        "Write to bob@example",
        "Bob at example dot",
        "w w w dot",
    ],
)
def test_dictating(text: str) -> None:
    assert words(text) is Words.DICTATING


@pytest.mark.parametrize("text", ["", "the weather in Boston", "Weasels have eaten our phone system,"])
def test_open(text: str) -> None:
    assert words(text) is Words.OPEN


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Wie ist das Wetter?", Words.FINISHED),
        ("今天天气怎么样？", Words.FINISHED),
        ("我想订一张桌子。", Words.FINISHED),
        ("Ich hätte gern", Words.OPEN),
        ("Er kam in a.", Words.FINISHED),  # English rules say nothing of other languages
        ("Ich meine…", Words.UNFINISHED),
        ("Meine Nummer ist 0171 23", Words.DICTATING),
    ],
)
def test_other_languages_have_their_marks_and_digits(text: str, meaning: Words) -> None:
    assert words(text, language="de") is meaning


def test_two_finished_witnesses_make_it_short() -> None:
    assert endpoint_ms("Turn off the lights.", 0.95, WAITS) == WAITS.shortest_ms


def test_one_witness_in_doubt_makes_it_longer_and_two_make_it_long() -> None:
    finished, cut = "Turn off the lights.", "Turn off the"
    by_voice, by_words = endpoint_ms(finished, 0.05, WAITS), endpoint_ms(cut, 0.95, WAITS)
    both = endpoint_ms(cut, 0.05, WAITS)
    assert WAITS.shortest_ms + 400 < by_words < by_voice < both < WAITS.longest_ms


def test_words_alone_are_less_sure_than_with_a_voice_that_ends() -> None:
    alone = endpoint_ms("Turn off the lights.", None, WAITS)
    assert endpoint_ms("Turn off the lights.", 0.95, WAITS) < alone < endpoint_ms("Turn off the", None, WAITS)


def test_it_stays_between_its_bounds_and_falls_as_the_voice_is_surer() -> None:
    for text in ("Turn off the lights.", "Turn off", "Turn off the", "five five", ""):
        waits_ms = [endpoint_ms(text, probability / 20, WAITS) for probability in range(21)]
        assert all(WAITS.shortest_ms <= wait_ms <= WAITS.longest_ms for wait_ms in waits_ms)
        assert all(later <= earlier for earlier, later in itertools.pairwise(waits_ms))


def test_one_bound_is_a_fixed_wait() -> None:
    assert endpoint_ms("Turn off the", 0.01, Waits(480, 480)) == 480


def test_without_words_the_voice_decides_and_without_both_a_fixed_wait() -> None:
    finished, unsure, goes_on = (endpoint_ms(None, probability, WAITS) for probability in (0.95, 0.4, 0.01))
    assert finished == WAITS.shortest_ms
    assert finished < unsure < goes_on < WAITS.longest_ms
    assert finished < endpoint_ms(None, None, WAITS) < goes_on
