"""Faults strike a stream as they strike a whole recording, however it is cut up."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.lab.signals import RATE_HZ, Signal
from ops.lab.spoil import BOOM, PACKET, Boom, Distort, Loss, Speed, Spoiler, spoilt

SAMPLES = 4 * BOOM
SIGNAL: Signal = np.random.default_rng(0).normal(0, 0.1, SAMPLES)
PLACES = (7, BOOM, SAMPLES - 100)
LOST = {0, 3, 4}

SPOILERS: dict[str, Callable[[], Spoiler]] = {
    "boom": lambda: Boom(-6.0, PLACES),
    "distort": lambda: Distort(16.0, 0.5, 0.2),
    "loss": lambda: Loss(LOST),
    "slower": lambda: Speed(4.0),
    "faster": lambda: Speed(-3.0),
}


@pytest.mark.parametrize("name", SPOILERS)
@given(cuts=st.lists(st.integers(0, SAMPLES), max_size=12))
def test_a_stream_is_spoilt_as_the_whole_is(name: str, cuts: list[int]) -> None:
    spoiler = SPOILERS[name]()
    pieces = [spoiler(piece) for piece in np.split(SIGNAL, sorted(cuts))]
    streamed, whole = np.concatenate([*pieces, spoiler.end()]), spoilt(SIGNAL, SPOILERS[name]())
    assert len(streamed) == len(whole) == spoiler.length(SAMPLES)
    np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SPOILERS)
def test_what_comes_is_not_changed_itself(name: str) -> None:
    before = SIGNAL.copy()
    SPOILERS[name]()(SIGNAL)
    assert np.array_equal(SIGNAL, before)


@pytest.mark.parametrize("name", SPOILERS)
def test_of_nothing_nothing_leaves(name: str) -> None:
    spoiler = SPOILERS[name]()
    assert len(spoiler(np.zeros(0))) == len(spoiler.end()) == spoiler.length(0) == 0


def test_a_boom_is_where_it_is_told_to_be_and_nowhere_else() -> None:
    struck = spoilt(np.zeros(SAMPLES), Boom(-6.0, PLACES))
    beside = np.ones(SAMPLES, np.bool_)
    for place in PLACES:
        beside[place : place + BOOM] = False
    assert np.all(struck[beside] == 0)
    assert np.max(np.abs(struck)) == pytest.approx(10 ** (-6 / 20), rel=0.05)


def test_lost_packets_are_silent_and_the_others_as_they_were() -> None:
    holed, packets = spoilt(SIGNAL, Loss(LOST)), np.arange(SAMPLES) // PACKET
    lost = np.isin(packets, list(LOST))
    assert np.all(holed[lost] == 0)
    assert np.array_equal(holed[~lost], SIGNAL[~lost])


@pytest.mark.parametrize("percent", [4.0, 0.3, -3.0])
def test_at_another_speed_it_is_read_between_the_samples(percent: float) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(SAMPLES) / RATE_HZ)
    heard = spoilt(tone, Speed(percent))
    places = np.arange(len(heard)) / (1 + percent / 100)
    assert len(heard) == pytest.approx(SAMPLES * (1 + percent / 100), abs=1)
    np.testing.assert_allclose(heard, np.interp(places, np.arange(SAMPLES), tone), rtol=0, atol=1e-6)
