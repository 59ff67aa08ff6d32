"""Where what was said lies in a recording: delays and speeds that are known."""

import math

import numpy as np
import pytest

from ops.lab.align import align
from ops.lab.mutate import speed
from ops.lab.signals import RATE_HZ, Signal
from tests.lab.recordings import recordings
from tests.speech_samples import needs_librivox

pytestmark = needs_librivox


def later(signal: Signal, seconds: float) -> Signal:
    return np.concatenate([np.zeros(round(seconds * RATE_HZ)), signal])


@pytest.mark.parametrize("seconds", [0.0, 0.123, 3.7])
@pytest.mark.parametrize("louder", [0.01, 1.0])
def test_a_delay_is_found_to_the_sample_whatever_the_level(seconds: float, louder: float) -> None:
    said = recordings()[0]
    way = align(said, louder * later(said, seconds))
    assert np.all(np.abs(way.lags - round(seconds * RATE_HZ)) <= 1)
    assert way.drift_pct == pytest.approx(0, abs=0.001)


def test_a_recording_that_begins_too_late_is_found_where_it_can_be() -> None:
    said = recordings()[0]
    way = align(said, said[2 * RATE_HZ :])
    assert way.found
    assert np.all(np.abs(way.lags + 2 * RATE_HZ) <= 1)


@pytest.mark.parametrize("percent", [-3.0, -0.2, 0.2, 1.0, 4.0])
def test_a_wrong_speed_is_told(percent: float) -> None:
    said = recordings()[1]
    heard = later(speed(said, percent, np.random.default_rng(0)), 0.5)
    assert align(said, heard).drift_pct == pytest.approx(percent, abs=0.1, rel=0.05)


def test_a_pause_that_a_jitter_buffer_stretched_is_followed_and_is_no_drift() -> None:
    said = recordings()[0]
    middle = len(said) // 2
    heard = np.concatenate([said[:middle], np.zeros(round(0.06 * RATE_HZ)), said[middle:]])
    way = align(said, heard)
    assert way.lags[0] == 0
    assert way.lags[-1] == round(0.06 * RATE_HZ)
    assert abs(way.drift_pct) < 0.5


@pytest.mark.parametrize("stalled_s", [0.15, 0.5])
def test_a_stall_in_mid_sentence_is_followed_through_packets_that_are_lost(stalled_s: float) -> None:
    said = recordings()[0]
    middle = 2 * len(said) // 3
    heard = np.concatenate([said[:middle], np.zeros(round(stalled_s * RATE_HZ)), said[middle:]])
    for at in range(0, len(heard), RATE_HZ // 2):
        heard[at : at + RATE_HZ * 6 // 100] = 0
    way = align(said, heard)
    assert way.found
    assert way.lags[0] == 0
    assert way.lags[-1] == pytest.approx(stalled_s * RATE_HZ, abs=RATE_HZ // 1000)


def test_of_a_short_recording_no_speed_is_told() -> None:
    said = recordings()[0][: 3 * RATE_HZ]
    way = align(said, speed(said, 1.0, np.random.default_rng(0)))
    assert way.found
    assert math.isnan(way.drift_pct)


def test_what_is_not_there_is_not_found() -> None:
    one, other = recordings()[:2]
    assert not align(one, np.zeros(5 * RATE_HZ)).found
    assert not align(one, np.random.default_rng(0).normal(0, 0.1, 5 * RATE_HZ)).found
    assert not align(one, other).found
