"""Each fault is found by the gate that is meant for it, and by no other, on people's voices."""

from collections import Counter

import pytest

from ops.lab.mutate import FAULTS
from ops.lab.self_test import CLEAN, Matrix, cases, report, run
from tests.lab.recordings import recordings
from tests.speech_samples import needs_librivox

RECORDINGS = 2


@needs_librivox
@pytest.mark.timeout(180)
def test_every_fault_is_found_and_nothing_else_is() -> None:
    done: list[int] = []
    matrix = run(recordings()[:RECORDINGS], done.append)
    assert len(done) == cases(RECORDINGS)
    assert {bound.name: bound.measured for bound in report(matrix).bounds if not bound.held} == {}


def test_a_detector_that_is_blind_or_sees_what_is_not_there_is_told() -> None:
    fired = {(fault.name, strength): Counter({fault.found_by: 3}) for fault in FAULTS for strength in fault.strengths}
    matrix = Matrix(3, {(CLEAN, 0.0): Counter(), **fired})
    assert report(matrix).ok
    gap = next(fault for fault in FAULTS if fault.name == "gap")
    fired[gap.name, gap.strengths[0]] = Counter({gap.found_by: 2, "clipping_pct": 1})
    missed = [bound.name for bound in report(Matrix(3, {(CLEAN, 0.0): Counter(), **fired})).bounds if not bound.held]
    assert missed == ["gap: not found by max_gap_ms", "gap: taken for something else"]
    heard = Matrix(3, {(CLEAN, 0.0): Counter({"spike_count": 1}), **fired})
    assert "gates fired on good recordings" in [bound.name for bound in report(heard).bounds if not bound.held]
