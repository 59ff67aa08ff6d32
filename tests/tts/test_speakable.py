import pytest
from hypothesis import given
from hypothesis import strategies as st

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
