"""What a recording has lost or gained on its way, beside what was said: rings 0 and 1.

In this order: where it lies, how fast it was played, how loud it is; then the rest, frame by frame. Above DRIFTS_PCT
frames no longer lie beside each other, so that what is counted by frames is not measurable then.
"""

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy import signal as filters

from ops.lab.align import Alignment, align
from ops.lab.signals import (
    BINS_HZ,
    FRAME,
    FRAME_MS,
    RATE_HZ,
    Positions,
    Signal,
    active,
    cut,
    frame_starts,
    levels_dbfs,
    mel_db,
    power_spectra,
)

Marks = npt.NDArray[np.bool_]

DRIFTS_PCT = 0.5
LOST_BY_DB = 25.0
LOST_BELOW_DBFS = -50.0
SHORTEST_GAP_MS = 20.0
TIMBRE_FRAMES = 100  # 1 s: a word says little of a timbre
LEAST_FRAMES = 200  # 2 s: one frame of a single word is no percent of what a caller hears
CLIPS = 0.999
HIGH_HZ = 4000.0
LOW_HZ = (80.0, 150.0)  # below the first there is no voice, below the second the deepest ones alone
BOOMS_BY_DB = 10.0
BOOMS_ABOVE_DBFS = -50.0
CLICKS_BY = 6.0  # times
CLICKS_ABOVE = 0.05  # of full scale
AROUND_MS = 200


@dataclass(frozen=True, slots=True)
class Measures:
    """NaN is what could not be measured."""

    active_dbfs: float  # of what was heard, where something was said
    drift_pct: float
    max_gap_ms: float
    dropout_pct: float  # of the time in which something was said, or of 2 s where that was less
    clipping_pct: float  # of all samples
    mel_distance_db: float  # where at least TIMBRE_FRAMES were spoken
    hf_ratio_drop_db: float
    spike_count: float

    @classmethod
    def nothing_found(cls) -> "Measures":
        return cls(*[math.nan] * len(fields(cls)))


@dataclass(frozen=True, slots=True)
class Beside:
    """What was heard beside what was said, frame by frame of the latter, [frames]."""

    way: Alignment
    starts: Positions  # of the frames, in what was said
    there: Positions  # and in what was heard
    levelled: Signal  # what was heard, as loud as what was said
    heard_db: Signal  # before that
    speaks: Marks
    lost: Marks
    booms: Marks
    clicks: Marks

    @property
    def in_step(self) -> bool:
        """Whether frames lie beside each other, so that `lost`, `booms` and `clicks` mean something."""
        return not abs(self.way.drift_pct) > DRIFTS_PCT


def measure(said: Signal, heard: Signal) -> Measures:
    """Both [n] at RATE_HZ: what was synthesized, and the recording in which it is to be found."""
    found = lay_beside(said, heard)
    if found is None:
        return Measures.nothing_found()
    starts, there, speaks, levelled = found.starts, found.there, found.speaks, found.levelled
    by_frames = 1.0 if found.in_step else math.nan
    return Measures(
        active_dbfs=float(10 * np.log10(np.mean(10 ** (found.heard_db[speaks] / 10)))),
        drift_pct=found.way.drift_pct,
        max_gap_ms=longest_gap_ms(found.lost) * by_frames,
        dropout_pct=100
        * int(np.count_nonzero(found.lost))
        / max(int(np.count_nonzero(speaks)), LEAST_FRAMES)
        * by_frames,
        clipping_pct=clipping_pct(_part(heard, found.way, len(said))),
        mel_distance_db=mel_distance_db(mel_db(said, starts)[speaks], mel_db(levelled, there)[speaks])
        if np.count_nonzero(speaks) >= TIMBRE_FRAMES
        else math.nan,
        hf_ratio_drop_db=hf_ratio_db(said, starts[speaks]) - hf_ratio_db(levelled, there[speaks]),
        spike_count=(len(stretches(found.booms)) + len(stretches(found.clicks))) * by_frames,
    )


def lay_beside(said: Signal, heard: Signal) -> Beside | None:
    """Both [n] at RATE_HZ; None where what was said is not found in the recording."""
    way = align(said, heard)
    if not way.found:
        return None
    starts = frame_starts(said)
    there = way.heard_at(starts)
    said_db, heard_db = levels_dbfs(said, starts), levels_dbfs(heard, there)
    speaks = active(said_db)
    gain_db = float(np.median((heard_db - said_db)[speaks]))
    levelled = heard * 10 ** (-gain_db / 20)
    return Beside(
        way=way,
        starts=starts,
        there=there,
        levelled=levelled,
        heard_db=heard_db,
        speaks=speaks,
        lost=speaks & (heard_db - gain_db < np.minimum(said_db - LOST_BY_DB, LOST_BELOW_DBFS)),
        booms=booms(said, levelled, starts, there),
        clicks=clicks(said, levelled, starts, there),
    )


def longest_gap_ms(lost: Marks) -> float:
    """Of frames in which nothing was heard of what was said; 0 where no two follow each other."""
    longest = max((end - first for first, end in stretches(lost)), default=0) * FRAME_MS
    return float(longest) if longest >= SHORTEST_GAP_MS else 0.0


def clipping_pct(heard: Signal) -> float:
    return float(100 * np.mean(np.abs(heard) >= CLIPS)) if len(heard) else math.nan


def stretches(marked: Marks) -> list[tuple[int, int]]:
    """Of the frames that are marked: the first of each stretch, and the one after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marked, [False]])))
    return [(int(first), int(end)) for first, end in zip(edges[::2], edges[1::2], strict=True)]


def mel_distance_db(said: npt.NDArray[np.float64], heard: npt.NDArray[np.float64]) -> float:
    """Of spectra [frames, bands] in dB: their RMS difference over the bands of a frame, level apart; mean of frames."""
    difference = heard - said
    difference -= difference.mean(axis=1, keepdims=True)
    return float(np.mean(np.sqrt(np.mean(difference**2, axis=1))))


def hf_ratio_db(signal: Signal, starts: Positions) -> float:
    """How much of a frame lies at HIGH_HZ and above; the median of these frames, so that no thump or click decides."""
    power = power_spectra(signal, starts)
    share = power[:, BINS_HZ >= HIGH_HZ].sum(axis=1) / np.maximum(power.sum(axis=1), 1e-12)
    return float(np.median(10 * np.log10(np.maximum(share, 1e-12))))


def booms(said: Signal, heard: Signal, starts: Positions, there: Positions) -> Marks:
    """Where the lowest tones are far louder than anything of them that was said around that time."""
    found = np.zeros(len(starts), np.bool_)
    for below_hz in LOW_HZ:
        low = filters.butter(8, below_hz, fs=RATE_HZ, output="sos")
        said_db, heard_db = (
            levels_dbfs(filters.sosfiltfilt(low, signal), at) for signal, at in ((said, starts), (heard, there))
        )
        found |= (heard_db > _loudest_around(said_db) + BOOMS_BY_DB) & (heard_db > BOOMS_ABOVE_DBFS)
    return found


def clicks(said: Signal, heard: Signal, starts: Positions, there: Positions) -> Marks:
    """Where the waveform bends far more sharply than anywhere around that time in what was said."""
    said_bend, heard_bend = (
        np.max(np.abs(cut(np.diff(signal, 2, prepend=[0.0, 0.0]), at, FRAME)), axis=1)
        for signal, at in ((said, starts), (heard, there))
    )
    found: Marks = (heard_bend > CLICKS_BY * _loudest_around(said_bend)) & (heard_bend > CLICKS_ABOVE)
    return found


def _loudest_around(values: Signal) -> Signal:
    beside = AROUND_MS // FRAME_MS
    padded = np.pad(values, beside, mode="edge")
    return np.asarray(np.max(np.lib.stride_tricks.sliding_window_view(padded, 2 * beside + 1), axis=1))


def _part(heard: Signal, way: Alignment, length: int) -> Signal:
    """Of the recording, that in which what was said lies."""
    first, last = way.heard_at(np.array([0, length]))
    return heard[max(0, int(first)) : max(0, int(last))]
