"""Nobody is told of a missed gate without being told where to look."""

from dataclasses import fields

from ops.lab import advice
from ops.lab.gates import GATES
from ops.lab.measures import Measures
from ops.lab.verdict import report
from tests.lab.kept_runs import good, run_of
from tests.speech_samples import needs_librivox


@needs_librivox
def test_every_gate_of_a_run_has_advice() -> None:
    bounds = report(run_of(good()), "a model").bounds
    assert [bound.name for bound in bounds if advice.of(bound.name) is None] == []


def test_every_gate_of_a_turn_has_advice() -> None:
    for gate in GATES:
        assert advice.ADVICE[advice.of_measure(gate.measure)].look


def test_advice_is_about_measures_that_there_are() -> None:
    known = {field.name for field in fields(Measures)}
    assert {each.measure for each in advice.ADVICE.values()} - {None} <= known


def test_what_held_needs_no_advice() -> None:
    missed = {"name": "dropout, worst turn", "held": False, "measured": 3.0}
    assert advice.in_lines([{"name": "clipping, worst turn", "held": True, "measured": 0.0}]) == []
    lines = advice.in_lines([missed])
    assert lines[0] == f"dropout: {advice.ADVICE['dropout'].symptom}"
    assert len(lines) == 2 + len(advice.ADVICE["dropout"].look)


def test_what_could_not_be_measured_is_not_taken_for_a_fault() -> None:
    bounds = [{"name": f"{gate}, worst turn", "held": False, "measured": None} for gate in ("longest gap", "dropout")]
    assert advice.to_do(bounds) == [(advice.UNMEASURED, ["longest gap", "dropout"])]
