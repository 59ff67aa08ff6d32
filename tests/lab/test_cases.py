"""The file of cases is as it must be, and one that is not is refused."""

import pytest
from pydantic import ValidationError

from ops.lab.cases import Played, cases, parsed, pieces

GOOD = '[sound.cough]\nwhat = "a cough"\nlicence = "none"\nmade = "cough"\n'


def case(name: str, lines: str) -> str:
    return f'[[case]]\nname = "{name}"\nsuites = ["fast"]\nlines = [{lines}]\n'


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
        (case("one", '{ say = ["Hello."] }') * 2, "two cases are called one"),
        (case("one", '{ say = [{ sound = "sneeze" }] }'), "no sound called sneeze"),
        (case("one", "{ say = [] }"), "at least 1 item"),
        (case("one", '{ say = ["Hello.", -1.0] }'), "greater than 0"),
        (case("one", '{ says = ["Hello."] }'), "Extra inputs"),
        (case("Not A Name", '{ say = ["Hello."] }'), "should match pattern"),
        (GOOD.replace("made", "archive"), "an archive and its member"),
    ],
)
def test_a_case_that_is_wrong_is_refused_in_words(toml: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        parsed((GOOD if "sound.cough" not in toml else "") + (toml if "[[case]]" in toml else toml + case("x", '{ say = ["x"] }')))
