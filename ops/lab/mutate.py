"""Faults on purpose: what each does to a good recording, and which measure is meant to find it.

A fault takes [n] at RATE_HZ and how strong it is; where it strikes is drawn from `random`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy import signal as filters

from ops.lab.signals import FRAME, RATE_HZ, Positions, Signal, active, frame_starts, levels_dbfs
from ops.lab.spoil import BOOM, Boom, Distort, Loss, Speed, spoilt


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    unit: str
    strengths: tuple[float, float, float]  # from the weakest that must be found on
    apply: Callable[[Signal, float, np.random.Generator], Signal]
    found_by: str  # a measure
    also: dict[str, str] = field(default_factory=dict)  # measures that it moves, too, and why they cannot help it


def boom(signal: Signal, peak_dbfs: float, random: np.random.Generator) -> Signal:
    """A thump in the loudspeaker, twice."""
    return spoilt(signal, Boom(peak_dbfs, _places(signal, 2, BOOM, random)))


def speed(signal: Signal, percent: float, random: np.random.Generator) -> Signal:
    """A clock that runs slow: all is longer, and lower."""
    return spoilt(signal, Speed(percent))


def distort(signal: Signal, drive: float, random: np.random.Generator) -> Signal:
    """An amplifier that is driven too hard, of the same loudness."""
    driven = spoilt(signal, Distort(drive, float(np.max(np.abs(signal))), 1.0))
    return np.asarray(driven * np.sqrt(np.mean(signal**2) / np.mean(driven**2)))


def gap(signal: Signal, milliseconds: float, random: np.random.Generator) -> Signal:
    """Silence in the place of speech."""
    length = round(milliseconds / 1000 * RATE_HZ)
    holed = signal.copy()
    for at in _places(signal, 1, length, random):
        holed[at : at + length] = 0
    return holed


def loss(signal: Signal, percent: float, random: np.random.Generator) -> Signal:
    """Packets of speech that did not come, and that nobody concealed."""
    speaks = np.flatnonzero(active(levels_dbfs(signal, frame_starts(signal)[::2])))
    lost = random.choice(speaks, math.ceil(len(speaks) * percent / 100), replace=False)
    return spoilt(signal, Loss(frozenset(lost.tolist())))


def low_pass(signal: Signal, hz: float, random: np.random.Generator) -> Signal:
    """A telephone's band."""
    return np.asarray(filters.sosfiltfilt(filters.butter(8, hz, fs=RATE_HZ, output="sos"), signal))


def clip(signal: Signal, gain_db: float, random: np.random.Generator) -> Signal:
    """Too loud for the converter: its peaks are `gain_db` above full scale."""
    return np.asarray(np.clip(signal / np.max(np.abs(signal)) * 10 ** (gain_db / 20), -1, 1))


def _places(signal: Signal, count: int, length: int, random: np.random.Generator) -> Positions:
    """Where it strikes: in the midst of speech."""
    starts = frame_starts(signal)
    speaks = active(levels_dbfs(signal, starts))
    fits = starts[starts + length < len(signal)]
    inside = [at for at in fits if np.mean(speaks[at // FRAME :][: length // FRAME]) > 0.9]
    return random.choice(np.array(inside or [0], np.int64), count)


TIMBRE = "it changes the timbre"
EDGES = "what is cut off clicks"
HIGH = "of an s nothing is left"
FAULTS = (
    Fault("boom", "dBFS", (-12.0, -9.0, -6.0), boom, "spike_count", {"mel_distance_db": "it fills a short answer"}),
    Fault("speed", "%", (1.0, 2.0, 4.0), speed, "drift_pct", {"mel_distance_db": "its tones are others"}),
    Fault(
        "distort",
        "times",
        (16.0, 24.0, 32.0),
        distort,
        "mel_distance_db",
        {"hf_ratio_drop_db": TIMBRE, "spike_count": EDGES},
    ),
    Fault(
        "gap",
        "ms",
        (100.0, 200.0, 400.0),
        gap,
        "max_gap_ms",
        {"dropout_pct": "a long gap is a dropout, too", "spike_count": EDGES},
    ),
    Fault(
        "loss",
        "%",
        (3.0, 6.0, 12.0),
        loss,
        "dropout_pct",
        {"max_gap_ms": "packets lost in a row are a gap", "spike_count": EDGES},
    ),
    Fault(
        "low-pass",
        "Hz",
        (3400.0, 2500.0, 1500.0),
        low_pass,
        "hf_ratio_drop_db",
        {"mel_distance_db": TIMBRE, "dropout_pct": HIGH, "max_gap_ms": HIGH},
    ),
    Fault(
        "clip",
        "dB",
        (6.0, 12.0, 18.0),
        clip,
        "clipping_pct",
        {"mel_distance_db": TIMBRE, "hf_ratio_drop_db": TIMBRE, "spike_count": EDGES},
    ),
)


def fault_named(name: str) -> Fault:
    """Raises KeyError."""
    return {fault.name: fault for fault in FAULTS}[name]
