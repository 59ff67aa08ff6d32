"""Two runs whose difference is known."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ops.figures import Report
from ops.lab import evidence
from ops.lab.compare import FIGURES, compare
from ops.lab.evidence import KeptTurn, Run
from tests.lab.kept_runs import good, keep
from tests.speech_samples import needs_librivox

pytestmark = needs_librivox

TURNS = 16


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> KeptTurn:
    return evidence.read(keep(tmp_path_factory.mktemp("lab") / "run", good())).turns[0]


def run_of(one: KeptTurn, first_audio_ms: Callable[[int], float], turns: int = TURNS, name: str = "run") -> Run:
    """Of as many turns that differ in how soon they were answered."""
    return Run(
        Path(name),
        {},
        {"packages": {"numpy": "2"}},
        [
            replace(
                one,
                facts=one.facts.model_copy(
                    update={
                        "name": f"turn-{number}",
                        "turn": one.facts.turn.model_copy(update={"eot_to_first_audio_ms": first_audio_ms(number)}),
                    }
                ),
            )
            for number in range(turns)
        ],
    )


def usual(number: int) -> float:
    return 700 + float(np.random.default_rng(number).normal(0, 80))


def verdicts(found: Report) -> dict[str, str]:
    [rows] = [rows for title, rows in found.tables.items() if title.startswith("Medians")]
    return {str(row["figure"]): str(row["verdict"]) for row in rows if row["verdict"]}


def test_two_runs_of_one_build_differ_by_chance_alone(one: KeptTurn) -> None:
    found = compare(run_of(one, usual), run_of(one, lambda number: usual(number + 100)))
    assert verdicts(found) == {}
    assert found.ok
    [rows] = [rows for title, rows in found.tables.items() if title.startswith("Medians")]
    assert len(rows) == len(FIGURES)


def test_what_got_slower_in_every_turn_is_told_and_fails(one: KeptTurn) -> None:
    slow = run_of(one, lambda number: usual(number + 100) + 250)
    found = compare(run_of(one, usual), slow)
    assert verdicts(found) == {"first audio heard, ms": "worse"}
    assert not found.ok
    assert verdicts(compare(slow, run_of(one, usual))) == {"first audio heard, ms": "better"}
    assert compare(slow, run_of(one, usual)).ok


def test_a_difference_that_nobody_notices_is_none_however_sure(one: KeptTurn) -> None:
    found = compare(run_of(one, usual), run_of(one, lambda number: usual(number) + 20))
    assert verdicts(found) == {}


def test_one_bad_turn_makes_no_bad_build(one: KeptTurn) -> None:
    found = compare(run_of(one, usual), run_of(one, lambda number: usual(number) + 3000 * (number == 3)))
    assert verdicts(found) == {}


def test_of_too_few_turns_nothing_is_concluded(one: KeptTurn) -> None:
    found = compare(run_of(one, usual, turns=4), run_of(one, usual))
    assert [bound.name for bound in found.bounds if not bound.held] == ["turns of both"]


def test_what_the_runs_were_made_with_is_laid_side_by_side(one: KeptTurn) -> None:
    other = replace(run_of(one, usual), versions={"packages": {"numpy": "3"}, "commit": "abc"})
    [changed] = [rows for title, rows in compare(run_of(one, usual), other).tables.items() if "something else" in title]
    assert changed == [
        {"what": "commit", "before": "None", "after": "abc"},
        {"what": "packages.numpy", "before": "2", "after": "3"},
    ]
