import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.tts.segment import FIRST_WORDS, LONGEST_CHARS, LONGEST_WORDS, Segment, Segmenter, count_words, ended_words
from daemons.tts.speech import LONGEST_TEXT_CHARS


def cut(*pieces: str, whole_sentences: bool = False) -> list[Segment]:
    segmenter = Segmenter(whole_sentences=whole_sentences)
    segments = [segment for piece in pieces for segment in segmenter.push(piece)]
    return segments + segmenter.flush()


def texts(*pieces: str, whole_sentences: bool = False) -> list[str]:
    return [segment.text for segment in cut(*pieces, whole_sentences=whole_sentences)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello! How can I help you today?", ["Hello!", "How can I help you today?"]),
        ("Well, yes. It is.", ["Well, yes.", "It is."]),
        ("No.", ["No."]),
        ("I met with Dr. Smith. He left.", ["I met with Dr. Smith.", "He left."]),
        ("J. K. Rowling wrote it. Really.", ["J. K. Rowling wrote it.", "Really."]),
        ("It costs $3.50 today. Cheap!", ["It costs $3.50 today.", "Cheap!"]),
        ("It has 1,250 seats and 12.5 rows. Big.", ["It has 1,250 seats and 12.5 rows.", "Big."]),
        ("Come at 7 p.m. tomorrow. Bye.", ["Come at 7 p.m. tomorrow.", "Bye."]),
        ("Come at 7 p.m. Then we eat.", ["Come at 7 p.m.", "Then we eat."]),
        ("Come at 7:30. Or at 8.15, please.", ["Come at 7:30.", "Or at 8.15, please."]),
        ("See www.example.com/a.b?c=d.e now. Ok.", ["See www.example.com/a.b?c=d.e now.", "Ok."]),
        ("Read https://example.com. Then call.", ["Read https://example.com.", "Then call."]),
        ("Mail jo.doe@mail.example.org today. Bye.", ["Mail jo.doe@mail.example.org today.", "Bye."]),
        ("Version 2.0.1 is out. Get it.", ["Version 2.0.1 is out.", "Get it."]),
        ("The answer is no. But wait.", ["The answer is no.", "But wait."]),
        ("See No. 5 there. Good.", ["See No. 5 there.", "Good."]),
        ("Take fruit, e.g. apples. Or not.", ["Take fruit, e.g. apples.", "Or not."]),
        ("He lives in the U.S. now. I see.", ["He lives in the U.S. now.", "I see."]),
        ("He lives in the U.S. They moved.", ["He lives in the U.S.", "They moved."]),
        ("George W. Bush vs. Al Gore, Jr. won. Ok.", ["George W. Bush vs. Al Gore, Jr. won.", "Ok."]),
        ("So it is I. And you?", ["So it is I.", "And you?"]),
        ("Well... I think so. Yes.", ["Well... I think so.", "Yes."]),
        ("Wait… what? Oh.", ["Wait… what?", "Oh."]),
        ('She said "Stop it!" and left. Bye.', ['She said "Stop it!" and left.', "Bye."]),
        ('"Stop it!" He left.', ['"Stop it!"', "He left."]),
        ("“Is it?” she asked. ‘No.’ Fine.", ["“Is it?” she asked.", "‘No.’", "Fine."]),
        ("Really?! Yes (I think so.) Fine.", ["Really?!", "Yes (I think so.)", "Fine."]),
        ("1. First this.\n2. Then that.", ["1. First this.", "2. Then that."]),
        ("- milk\n- eggs\n\nThat is all.", ["- milk", "- eggs", "That is all."]),
        ("One line\nand another", ["One line", "and another"]),
        ("Great! 🎉 Let us go 🚀. Now.", ["Great!", "🎉 Let us go 🚀.", "Now."]),
        ("你好，我是助手。今天天气很好！你呢？", ["你好，我是助手。", "今天天气很好！", "你呢？"]),
        ("「本当ですか？」はい。そうです。", ["「本当ですか？」", "はい。", "そうです。"]),
        ("안녕하세요. 반갑습니다! 네.", ["안녕하세요.", "반갑습니다!", "네."]),
        ("", []),
        ("   \n ", []),
    ],
)
def test_sentences_are_cut_where_they_end(text: str, expected: list[str]) -> None:
    assert texts(text, whole_sentences=True) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sure, I can do that, no problem at all.", Segment("Sure, I can do that,", after="")),
        ("I'm sorry, but I don't have enough information.", Segment("I'm sorry,", after="")),
        ("My favourite big city of them all is Rome.", Segment("My favourite big city", after="of")),
        ("The next train to Boston leaves at six.", Segment("The next train", after="to Boston")),
        ("Rome is the capital of Italy.", Segment("Rome is the capital", after="of")),
        ("Look in the places where you were.", Segment("Look in the places", after="where")),
        ("你好，我是你的助手。", Segment("你好，我是你的助手。")),
        ("今天天气非常好，我们去公园散步吧。", Segment("今天天气非常好，", after="")),
    ],
)
def test_the_first_fragment_ends_before_a_phrase_and_knows_how_it_goes_on(text: str, expected: Segment) -> None:
    assert cut(text)[0] == expected


def test_what_goes_on_knows_what_was_said_before() -> None:
    first, second = cut("The next train to Boston leaves at six.")
    assert (first.before, first.after) == ("", "to Boston")
    assert second == Segment("to Boston leaves at six.", before="The next train")
    assert cut("It is so. And that is that.")[1].before == ""


def test_what_was_said_before_is_bounded() -> None:
    segments = cut("word " * 500)
    assert all(len(segment.before) <= 120 for segment in segments)
    assert all(segment.before.startswith("word") for segment in segments[1:])


def test_later_sentences_are_whole() -> None:
    later = "This one, as you can hear, is a whole sentence with two clauses."
    assert texts(f"The first of them is over, and so is this one here. {later}")[-1] == later


def test_a_sentence_waits_for_its_end_and_the_fragment_for_a_word_too_many() -> None:
    segmenter = Segmenter()
    assert segmenter.push("It is one") == []
    assert segmenter.push(" of the") == []
    assert segmenter.push(" v") == [Segment("It is one", after="of the")]
    assert segmenter.push("ery best places.") == []
    assert segmenter.push(" I") == [Segment("of the very best places.", before="It is one")]


def test_flush_says_what_is_buffered_and_more_may_follow() -> None:
    segmenter = Segmenter()
    assert segmenter.push("One moment") == []
    assert segmenter.flush() == [Segment("One moment")]
    assert segmenter.push("please. ") == [Segment("please.")]
    assert segmenter.flush() == []


TEXT = st.text(st.sampled_from("ab Aé1.,!?;:\"'()…\n你好。，🙂*-") | st.characters(codec="utf-8"), max_size=400)


@given(TEXT, st.data(), st.booleans())
def test_it_does_not_matter_in_which_pieces_text_arrives(text: str, data: st.DataObject, whole: bool) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert cut(*pieces, whole_sentences=whole) == cut(text, whole_sentences=whole)
    assert cut(*text, whole_sentences=whole) == cut(text, whole_sentences=whole)


@given(TEXT, st.booleans())
def test_nothing_is_lost_but_white_space(text: str, whole: bool) -> None:
    assert re.sub(r"\s", "", "".join(texts(text, whole_sentences=whole))) == re.sub(r"\s", "", text)


@given(TEXT, st.booleans())
def test_no_segment_is_too_long(text: str, whole: bool) -> None:
    segments = texts(text * 4, whole_sentences=whole)
    assert all(count_words(segment) <= LONGEST_WORDS and len(segment) <= LONGEST_CHARS for segment in segments)
    if not whole:
        assert all(count_words(segment) <= FIRST_WORDS for segment in segments[:1])


@given(TEXT)
def test_what_is_known_to_follow_does_follow(text: str) -> None:
    segments = cut(text)
    for segment, following in pairwise(segments):
        if segment.after:
            rest = " ".join(one.text for one in segments[segments.index(segment) + 1 :])
            assert re.sub(r"\s", "", rest).startswith(re.sub(r"\s", "", segment.after))
        if segment.after is not None:
            assert following.before.endswith(segment.text[-20:].split(" ")[-1])
        else:
            assert following.before == ""


@pytest.mark.parametrize("text", ["...", '"', ",", "!?", "🔊", "[", "x", "你", "a/", "2 * "])
def test_the_longest_text_is_cut_at_once_whatever_it_holds(text: str) -> None:
    started = time.monotonic()
    assert cut((text * LONGEST_TEXT_CHARS)[:LONGEST_TEXT_CHARS])
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("", ""),
        ("Hel", ""),
        ("Hello wor", "Hello "),
        ("Hello  ", "Hello  "),
        ("你好", "你好"),
        ("你好，wor", "你好，"),
        ("3.1", ""),
    ],
)
def test_words_have_ended_when_nothing_can_make_them_longer(text: str, ended: str) -> None:
    assert text[: ended_words(text)] == ended


@given(st.text(alphabet="ab .,你。\n", max_size=30), st.integers(1, 5))
def test_ended_words_are_the_same_however_text_is_cut(text: str, size: int) -> None:
    rest, out = "", ""
    for at in range(0, len(text), size):
        rest += text[at : at + size]
        end = ended_words(rest)
        out, rest = out + rest[:end], rest[end:]
    assert out + rest == text
    assert out == text[: ended_words(text)]
