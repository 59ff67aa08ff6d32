import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.llm.stops import StopText

SHORT = st.text(alphabet="ab\n", max_size=12)


@given(text=st.lists(SHORT), stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3))
def test_what_is_shown_is_all_up_to_the_first_stop(text: list[str], stops: list[str]) -> None:
    stopped = StopText(stops)
    shown = ""
    for piece in text:
        so_far = stopped.feed(piece)
        shown += so_far
        if stopped.hit:
            break
    else:
        shown += stopped.rest()
    whole = "".join(text)
    ends = [at for stop in stops if (at := whole.find(stop)) >= 0]
    if stopped.hit:
        assert all(stop not in shown for stop in stops)
        assert any(whole.startswith(shown + stop) for stop in stops)
    else:
        assert not ends
        assert shown == whole


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["Hello", " wor", "ld"], ["Hello", " wor", "ld"]),
        (["Hello <", "end", "> more"], ["Hello ", "", ""]),
        (["a <e", "x"], ["a ", "<ex"]),
    ],
)
def test_only_what_may_become_a_stop_is_held_back(pieces: list[str], shown: list[str]) -> None:
    stopped = StopText(["<end>"])
    assert [stopped.feed(piece) for piece in pieces] == shown
