"""Figures: percentiles that are samples, bounds that fail a run, and what a person or a program reads of them."""

import json
import math
import random
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from ops.figures import Bound, Report, Summary, machine

samples = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=300)


def test_a_summary_of_known_samples() -> None:
    hundred = list(range(1, 101))
    random.Random(1).shuffle(hundred)
    assert Summary.of(hundred) == Summary(n=100, median=50.5, p95=95, p99=99, max=100)


@pytest.mark.parametrize(("n", "has_p95", "has_p99"), [(1, 0, 0), (19, 0, 0), (20, 1, 0), (99, 1, 0), (100, 1, 1)])
def test_few_samples_have_a_maximum_and_no_percentile(n: int, has_p95: bool, has_p99: bool) -> None:
    summary = Summary.of(range(n))
    assert (summary.p95 is not None, summary.p99 is not None) == (has_p95, has_p99)
    assert summary.max == n - 1


@given(samples)
def test_a_percentile_leaves_that_share_of_the_samples_below_it(values: list[float]) -> None:
    summary = Summary.of(values)
    for percentile, share in ((summary.p95, 0.95), (summary.p99, 0.99)):
        if percentile is not None:
            assert percentile in values
            assert sum(value <= percentile for value in values) >= share * len(values)
            assert sum(value >= percentile for value in values) >= (1 - share) * len(values)


def test_nothing_measured_is_no_figure() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Summary.of([])


@pytest.mark.parametrize(
    ("bound", "held"),
    [
        (Bound("overlaps", 0, 0), True),
        (Bound("overlaps", 1, 0), False),
        (Bound("rate", 499, 500, kind="at least"), False),
        (Bound("rate", 500, 500, kind="at least"), True),
        (Bound("not measurable", math.nan, 500), False),
        (Bound("not measurable", math.nan, 500, kind="at least"), False),
    ],
)
def test_a_bound_is_held_or_missed(bound: Bound, held: bool) -> None:
    assert bound.held is held


def report(*bounds: Bound) -> Report:
    return Report(
        "bench nothing",
        facts={"seed": 7},
        samples={"few": Summary.of([1.0, 2.0]), "many": Summary.of(map(float, range(1, 101)))},
        counts={"rounds": 1200},
        ratios={"many to few": 33.6667},
        tables={"steps": [{"step": "one", "ms": 1200.0}, {"step": "none", "ms": math.inf}, {"step": "no", "ms": None}]},
        bounds=list(bounds),
    )


def test_a_person_reads_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    report(Bound("few, at most", 2.0, 1.5, "ms")).show()
    said = capsys.readouterr().out
    assert machine() in said
    assert [line.split() for line in said.splitlines() if line.startswith(("few ", "many "))] == [
        ["few", "2", "1.5", "-", "-", "2"],
        ["many", "100", "50.5", "95", "99", "100"],
        ["many", "to", "few:", "33.67", "times"],
    ]
    assert "rounds: 1,200" in said
    assert said[said.index("steps") :].split()[:9] == [
        *("steps", "step", "ms"),
        *("one", "1,200"),
        *("none", "not", "measurable"),
        "no",
    ]
    assert "MISSED few, at most: 2 ms, at most 1.5 ms" in said


def test_a_run_with_a_missed_bound_exits_with_one(tmp_path: Path) -> None:
    report(Bound("a", 1, 1)).finish(tmp_path / "good.json")
    with pytest.raises(typer.Exit) as left:
        report(Bound("a", 1, 1), Bound("b", math.nan, 1)).finish(tmp_path / "bad.json")
    assert left.value.exit_code == 1
    good, bad = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("good", "bad"))
    assert (good["ok"], bad["ok"]) == (True, False)
    assert bad["bounds"][1] == {
        "name": "b", "measured": None, "kind": "at most", "limit": 1, "unit": "", "held": False
    }  # fmt: skip
    assert [row["ms"] for row in good["tables"]["steps"]] == [1200.0, None, None]
    assert good["samples"]["few"] == {"n": 2, "median": 1.5, "max": 2.0}
    assert good["machine"] == machine()


def test_stdout_is_json_alone_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    report().finish(Path("-"))
    assert json.loads(capsys.readouterr().out)["counts"] == {"rounds": 1200}


def test_the_machine_has_a_name() -> None:
    assert "core" in machine()
    assert " GB, " in machine()
