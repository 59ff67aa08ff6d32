"""The file of cases is as it must be, and one that is not is refused."""

import pytest
from pydantic import ValidationError

from ops.lab.cases import Played, cases, parsed, pieces

COUGH = '[sound.cough]\nwhat = "a cough"\nlicence = "none"\nmade = "cough"\n'
HELLO = '[[case]]\nname = "one"\nsuites = ["fast"]\nlines = [{ say = ["Hello."] }]\n'


def test_suites_are_as_large_as_they_are_said_to_be() -> None:
    fast, nightly = cases().of("fast"), cases().of("nightly")
    assert sum(one.priority == "P0" for one in fast) == 12
    assert max(len(one.lines) for one in nightly) == 20
    assert {one.name for one in cases().of("ci")} <= {one.name for one in fast}


def test_every_sound_has_a_licence_and_is_played() -> None:
    played = {piece.sound for one in cases().case for piece in pieces(one) if isinstance(piece, Played)}
    assert played == set(cases().sound)
    assert all(sound.licence for sound in cases().sound.values())


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        (HELLO * 2, "two cases are called one"),
        (HELLO.replace('"Hello."', '{ sound = "sneeze" }'), "no sound called sneeze"),
        (HELLO.replace('"Hello."', ""), "at least 1 item"),
        (HELLO.replace('"Hello."', '"Hello.", -1.0'), "greater than 0"),
        (HELLO.replace("say", "says"), "Extra inputs"),
        (HELLO.replace('"one"', '"Not A Name"'), "should match pattern"),
        (HELLO + 'fault = "hiccup"\n', "no live fault is called hiccup"),
    ],
)
def test_a_case_that_is_wrong_is_refused_in_words(toml: str, why: str) -> None:
    parsed(COUGH + HELLO)
    with pytest.raises(ValidationError, match=why):
        parsed(COUGH + toml)


def test_a_sound_is_had_in_one_way() -> None:
    with pytest.raises(ValidationError, match="an archive and its member"):
        parsed(COUGH.replace("made", "archive") + HELLO)
