import pytest

from daemons.stt.repeats import looping_tail


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("set a timer set a timer set a timer", "set a timer"),
        ("well the word of the word of the word of", "well the word of"),
        ("no no no no no no", "no"),
    ],
)
def test_a_loop_is_cut_to_one_copy(said: str, kept: str) -> None:
    words = said.split()
    looped = looping_tail(words)
    assert words[: len(words) - looped] == kept.split()


@pytest.mark.parametrize(
    "said", ["no no no", "ha ha ha ha", "bye bye bye", "it is good it is good", "one two three", ""]
)
def test_what_people_say_is_no_loop(said: str) -> None:
    assert looping_tail(said.split()) == 0
