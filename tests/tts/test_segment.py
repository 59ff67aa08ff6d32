import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.tts.segment import FIRST_WORDS, LONGEST_CHARS, LONGEST_WORDS, Segmenter, count_words


def segments(*pieces: str) -> list[str]:
    segmenter = Segmenter()
    cut = [segment for piece in pieces for segment in segmenter.push(piece)]
    return cut + segmenter.flush()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello! How can I help you today?", ["Hello!", "How can I help you today?"]),
        ("Well, yes. It is.", ["Well, yes.", "It is."]),
        ("No.", ["No."]),
        ("I met with Dr. Smith. He left.", ["I met with Dr. Smith.", "He left."]),
        ("J. K. Rowling wrote it. Really.", ["J. K. Rowling wrote it.", "Really."]),
        ("It costs $3.50 today. Cheap!", ["It costs $3.50 today.", "Cheap!"]),
        ("Come at 7 p.m. tomorrow. Bye.", ["Come at 7 p.m. tomorrow.", "Bye."]),
        ("Come at 7 p.m. Then we eat.", ["Come at 7 p.m.", "Then we eat."]),
        ("See www.example.com/a.b?c=d.e now. Ok.", ["See www.example.com/a.b?c=d.e now.", "Ok."]),
        ("Version 2.0.1 is out. Get it.", ["Version 2.0.1 is out.", "Get it."]),
        ("The answer is no. But wait.", ["The answer is no.", "But wait."]),
        ("See No. 5 there. Good.", ["See No. 5 there.", "Good."]),
        ('She said "Stop it!" and left.', ['She said "Stop it!"', "and left."]),
        ("Really?! Yes (I think so.) Fine.", ["Really?!", "Yes (I think so.)", "Fine."]),
        ("1. First this.\n2. Then that.", ["1. First this.", "2. Then that."]),
        ("One line\nand another", ["One line", "and another"]),
        ("你好，我是助手。今天天气很好！你呢？", ["你好，我是助手。", "今天天气很好！", "你呢？"]),
        ("", []),
        ("   \n ", []),
    ],
)
def test_sentences_are_cut_where_they_end(text: str, expected: list[str]) -> None:
    assert segments(text) == expected


def test_the_first_fragment_is_a_clause_when_there_is_one() -> None:
    assert segments("Sure, I can do that, no problem at all.")[0] == "Sure, I can do that,"


def test_the_first_fragment_of_a_long_sentence_ends_before_a_phrase() -> None:
    assert segments("My favourite big city of them all is Rome.")[0] == "My favourite big city"


def test_later_sentences_are_whole() -> None:
    later = "This one, as you can hear, is a whole sentence with two clauses."
    assert segments(f"The first one is over. {later}")[1:] == [later]


def test_a_sentence_waits_for_its_end_and_the_fragment_for_a_word_too_many() -> None:
    segmenter = Segmenter()
    assert segmenter.push("It is one") == []
    assert segmenter.push(" of the very") == []
    assert segmenter.push(" b") == ["It is one"]
    assert segmenter.push("est places.") == []
    assert segmenter.push(" I") == ["of the very best places."]


def test_flush_says_what_is_buffered_and_more_may_follow() -> None:
    segmenter = Segmenter()
    assert segmenter.push("One moment") == []
    assert segmenter.flush() == ["One moment"]
    assert segmenter.push("please. ") == ["please."]
    assert segmenter.flush() == []


TEXT = st.text(st.sampled_from("ab Aé1.,!?;:\"'()…\n你好。，🙂*-") | st.characters(codec="utf-8"), max_size=400)


@given(TEXT, st.data())
def test_it_does_not_matter_in_which_pieces_text_arrives(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert segments(*pieces) == segments(text)


@given(TEXT)
def test_nothing_is_lost_but_white_space(text: str) -> None:
    assert re.sub(r"\s", "", "".join(segments(text))) == re.sub(r"\s", "", text)


@given(TEXT)
def test_no_segment_is_too_long(text: str) -> None:
    cut = segments(text * 4)
    assert all(count_words(segment) <= LONGEST_WORDS and len(segment) <= LONGEST_CHARS for segment in cut)
    assert all(count_words(segment) <= FIRST_WORDS for segment in cut[:1])
