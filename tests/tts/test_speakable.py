import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.tts.segment import Segmenter
from daemons.tts.speakable import speakable


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("**Bold** and _it_ and `code`.", "Bold and it and code."),
        ("snake_case stays", "snake_case stays"),
        ("A [link](https://a.b/c) and ![a cat](cat.png).", "A link and a cat."),
        ("## Title", "Title"),
        ("- one\n- two", "one two"),
        ("> quoted", "quoted"),
        ("a<br>b <b>c</b>", "a b c"),
        ("5 < 6 and 7 > 2", "5 < 6 and 7 > 2"),
        ("Go to https://www.example.com/x?y=1.", "Go to example dot com."),
        ("Mail jo.doe@example.org, please", "Mail jo dot doe at example dot org, please"),
        ("Great 😀! Go 🚀 now 👍🏽", "Great! Go now"),
        ("2 * 3 and 4 × 5", "2 times 3 and 4 times 5"),
        ("salt & pepper", "salt and pepper"),
        ("| a | b |", "a, b,"),
        ("你好，世界 👋", "你好，世界"),
        ("3.14 at 5:30 p.m. costs $5", "3.14 at 5:30 p.m. costs $5"),
        ("Dr. Smith, e.g. J. K. Rowling, v2.0.1, 1,250.50", "Dr. Smith, e.g. J. K. Rowling, v2.0.1, 1,250.50"),
        (
            "Write to first.last+tag@mail.example.co.uk.",
            "Write to first dot last plus tag at mail dot example dot co dot uk.",
        ),
        ("See http://a.example:8080/x#y, then go.", "See a dot example, then go."),
        ("“Quoted” ‘so’ (or so)", "“Quoted” ‘so’ (or so)"),
        ("Well… yes", "Well... yes"),
        ("1. First\n2. Then", "1. First 2. Then"),
        ("「はい」と言った🙂。", "「はい」と言った。"),
        ("a [footnote] here", "a footnote here"),
        ("the [long", "the long"),
        ("way](https://a.b/c) home", "way home"),
    ],
)
def test_text_is_made_fit_to_be_said(written: str, said: str) -> None:
    assert speakable(written) == said


@pytest.mark.parametrize("written", ["", "  ", "...", "😀👍🏽", "---", "***", "|---|---|", "```"])
def test_what_cannot_be_said_is_nothing(written: str) -> None:
    assert speakable(written) == ""


@given(st.text(max_size=300))
def test_any_text_comes_out_in_one_line(written: str) -> None:
    said = speakable(written)
    assert said == " ".join(said.split())


WRITTEN = [
    *(
        "Dr. Smith",
        "e.g.",
        "3.14",
        "$5.50",
        "7:30",
        "at 5 p.m.",
        "J. K. Rowling",
        "U.S.",
        "v2.0.1",
        "No. 5",
        "I.",
        "Yes!",
    ),
    *("https://example.com/a?b=c.", "www.example.org", "jo.doe@example.com,", "**very bold words**", "_so_", "`code`"),
    *(
        "[a link of many words](https://a.b/c)",
        "![cat](cat.png)",
        "😀",
        "👍🏽.",
        '"Stop it!"',
        "“Is it?”",
        "well...",
        "hm…",
    ),
    *("one", "of", "the", "places,", "then;", "and", "go.", "why?", "salt & pepper", "2 * 3"),
]


@given(st.lists(st.sampled_from(WRITTEN), min_size=1, max_size=25), st.data())
def test_cut_text_is_made_fit_to_be_said_as_whole_text_is(words: list[str], data: st.DataObject) -> None:
    """Whatever the pieces in which it arrives, and wherever it is cut then."""
    text = " ".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    segmenter = Segmenter()
    segments = [
        segment
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)
        for segment in segmenter.push(text[start:end])
    ]
    said = [speakable(segment.text) for segment in [*segments, *segmenter.flush()]]
    assert re.findall(r"\w+", " ".join(said)) == re.findall(r"\w+", speakable(text))
