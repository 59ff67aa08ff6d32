"""Faults that are put into live calls: strong enough to be found, and the verdict when they are not."""

import numpy as np
import pytest
from pydantic import ValidationError

from ops.lab import live
from ops.lab.calls import RecordedTurn
from ops.lab.cases import Case, Line, cases
from ops.lab.gates import gate_of
from ops.lab.measures import measure
from ops.lab.mutate import fault_named
from ops.lab.run import judged
from ops.lab.self_test import as_heard
from ops.lab.signals import Signal
from ops.lab.spoil import spoilt
from ops.lab.verdict import report
from tests.lab.kept_runs import run_of
from tests.lab.recordings import recordings
from tests.lab.test_verdict import SILENCE, pcm, turn
from tests.speech_samples import needs_librivox

LINES = (Line(say=("A question",)),)
PEAK = 0.3  # of a voice that is softer than the one that is expected


def said() -> Signal:
    recording = recordings()[0]
    return np.asarray(recording * PEAK / np.max(np.abs(recording)))


def heard(fault: str | None) -> Signal:
    """What comes through Opus of what was spoilt before it."""
    way = said() if fault is None else spoilt(said(), live.spoiler(fault))
    return as_heard(way, np.random.default_rng(0))


def missed(fault: str, recording: Signal) -> list[str]:
    case = Case(name=f"live-{fault}", suites=(), lines=LINES, fault=fault)
    one = RecordedTurn(f"{case.name}-1", case.name, case, turn(), (), SILENCE, pcm(said()), pcm(recording))
    return [bound.name for bound in report(run_of(judged(one)), "a model").bounds if not bound.held]


@needs_librivox
@pytest.mark.parametrize("fault", live.FAULTS)
def test_each_fault_is_found_by_its_measure_after_the_codec(fault: str) -> None:
    gate = gate_of(fault_named(fault).found_by)
    assert gate.fires(measure(said(), heard(fault)))
    assert not gate.fires(measure(said(), heard(None)))


@needs_librivox
@pytest.mark.parametrize("fault", live.FAULTS)
def test_a_call_with_a_fault_passes_when_it_is_found_and_fails_when_it_is_not(fault: str) -> None:
    assert missed(fault, heard(fault)) == []
    assert missed(fault, heard(None)) == [f"{fault} not found by {fault_named(fault).found_by}, live-{fault}-1"]


def test_there_is_a_case_for_each_and_none_for_others() -> None:
    assert {case.fault for case in cases().case} == {None, *live.FAULTS}
    with pytest.raises(ValidationError, match="no live fault is called clip"):
        Case(name="live-clip", suites=(), lines=LINES, fault="clip")
