"""Slopes of series whose slope is known."""

import random
import statistics

import pytest

from ops.slope import Slope

CALLS = 150


def test_a_line_has_its_slope() -> None:
    assert Slope.of([(x, 3.0 * x + 7) for x in (0, 1, 2, 5, 9)]) == Slope(3, 3, 3)


def test_what_never_changes_has_none() -> None:
    assert Slope.of([(x, 42) for x in range(50)]) == Slope(0, 0, 0)


def test_one_point_has_no_slope() -> None:
    with pytest.raises(ValueError, match="no slope"):
        Slope.of([(1, 1)])


def test_a_single_step_is_none() -> None:
    slope = Slope.of([(x, 1000 * (x >= 120)) for x in range(CALLS)])
    assert slope.median == 0


def test_wild_values_here_and_there_do_not_move_it() -> None:
    slope = Slope.of([(x, 2.0 * x + 1e6 * (x % 10 == 3)) for x in range(CALLS)])
    assert slope.median == pytest.approx(2, rel=0.05)


def test_its_interval_holds_the_truth_as_often_as_it_says() -> None:
    dice = random.Random(1)
    truth, held, widths = 0.5, 0, []
    for _ in range(200):
        slope = Slope.of([(x, truth * x + dice.gauss(0, 20)) for x in range(60)])
        held += slope.low <= truth <= slope.high
        widths.append(slope.high - slope.low)
    assert 180 <= held <= 199
    assert statistics.median(widths) < 1
