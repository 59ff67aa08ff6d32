"""Recorded speech as the lab looks at it."""

from functools import cache

from daemons.audio import STT_RATE_HZ, Pcm, to_int16
from ops.lab.signals import RATE_HZ, Signal, signal_of
from tests.speech_samples import librivox

LONG_ENOUGH_S = 5.0  # that its speed can be told


@cache
def recordings() -> list[Signal]:
    """[n] at RATE_HZ; people who read aloud."""
    found = [signal_of(Pcm(to_int16(samples), STT_RATE_HZ)) for samples, _ in librivox()]
    return [signal for signal in found if len(signal) > LONG_ENOUGH_S * RATE_HZ]
