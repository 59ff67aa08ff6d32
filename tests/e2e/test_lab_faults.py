"""Faults in what is said to a caller, on its way through the whole box: the lab finds each."""

import pytest

from ops.lab.callers import Voice
from ops.lab.calls import dial_case
from ops.lab.cases import cases
from ops.lab.run import judge
from ops.lab.verdict import report
from ops.private_box import PrivateBox

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.mark.parametrize("name", [case.name for case in cases().case if case.fault is not None])
async def test_a_fault_in_a_call_is_found_by_the_measure_that_is_meant_for_it(box: PrivateBox, name: str) -> None:
    run = judge([await dial_case(box.settings, await Voice.of(box.settings, cases().named(name)))])
    bounds = [bound for bound in report(run, "the box's own").bounds if "not found by" in bound.name]
    assert len(bounds) == 1
    assert bounds[0].held, (bounds[0].name, run.turns[0].measures)
