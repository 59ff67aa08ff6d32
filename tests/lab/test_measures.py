"""What was done to a recording is what is measured of it."""

import math

import numpy as np
import pytest

from ops.lab.measures import measure
from ops.lab.mutate import speed
from ops.lab.self_test import as_heard
from ops.lab.signals import FRAME, RATE_HZ, Signal, active, frame_starts, levels_dbfs
from tests.lab.recordings import recordings
from tests.speech_samples import needs_librivox

pytestmark = needs_librivox


@pytest.fixture
def said() -> Signal:
    return recordings()[0]


def heard(said: Signal) -> Signal:
    return as_heard(said, np.random.default_rng(0))


def in_speech(signal: Signal, seconds: float) -> int:
    """Where so much speech without a pause begins."""
    speaks = active(levels_dbfs(signal, frame_starts(signal)))
    frames = round(seconds * RATE_HZ) // FRAME
    return next(at for at in range(len(speaks)) if np.all(speaks[at : at + frames])) * FRAME


def test_a_good_recording_has_nothing(said: Signal) -> None:
    found = measure(said, heard(said))
    assert (found.max_gap_ms, found.dropout_pct, found.clipping_pct, found.spike_count) == (0, 0, 0, 0)
    assert abs(found.drift_pct) < 0.01
    assert found.mel_distance_db < 4
    assert abs(found.hf_ratio_drop_db) < 3


@pytest.mark.parametrize("milliseconds", [40, 100, 250])
def test_a_hole_is_as_long_as_it_is(said: Signal, milliseconds: int) -> None:
    recording = heard(said)
    at = in_speech(recording, milliseconds / 1000)
    recording[at : at + milliseconds * RATE_HZ // 1000] = 0
    assert measure(said, recording).max_gap_ms == pytest.approx(milliseconds, abs=20)


def test_half_a_frame_of_silence_is_no_gap(said: Signal) -> None:
    recording = heard(said)
    at = in_speech(recording, 0.05)
    recording[at : at + FRAME // 2] = 0
    assert measure(said, recording).max_gap_ms == 0


@pytest.mark.parametrize(("holes", "counts"), [(1, False), (5, True)])
def test_a_hole_of_20_ms_in_a_single_word_is_no_percent_and_some_are(said: Signal, holes: int, counts: bool) -> None:
    word = said[in_speech(said, 0.5) :][: RATE_HZ // 2 + 10 * FRAME]
    recording = heard(word)
    first = in_speech(recording, 0.3)
    for number in range(holes):
        recording[first + 5 * number * FRAME :][: 2 * FRAME] = 0
    assert (measure(word, recording).dropout_pct > 1) is counts


@pytest.mark.parametrize("louder_db", [-30.0, 0.0, 3.0])
def test_loudness_is_told_and_changes_nothing_else(said: Signal, louder_db: float) -> None:
    here, there = measure(said, heard(said)), measure(said, heard(said) * 10 ** (louder_db / 20))
    assert there.active_dbfs - here.active_dbfs == pytest.approx(louder_db, abs=0.01)
    assert there.mel_distance_db == pytest.approx(here.mel_distance_db, abs=0.01)
    assert (there.max_gap_ms, there.spike_count) == (0, 0)


def test_beside_a_clock_that_runs_wrong_frames_are_not_counted(said: Signal) -> None:
    found = measure(said, speed(heard(said), 1.0, np.random.default_rng(0)))
    assert found.drift_pct == pytest.approx(1, abs=0.1)
    assert math.isnan(found.max_gap_ms)
    assert math.isnan(found.dropout_pct)
    assert math.isnan(found.spike_count)


def test_of_another_recording_nothing_is_measured(said: Signal) -> None:
    found = measure(said, np.random.default_rng(0).normal(0, 0.1, len(said)))
    assert math.isnan(found.max_gap_ms)
    assert math.isnan(found.active_dbfs)
