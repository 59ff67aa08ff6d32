"""Where in what the caller heard each moment of what was said lies, and how much faster or slower it was played.

Windows of the mel spectrogram are sought one after another, each near where the one before it was found: so a jitter
buffer that stretches a pause, and a sound card that runs fast, are followed. Then the waveform tells the place to a
sample. The way is followed by likeness alone, so that level and timbre do not matter, and a hole is stepped over.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import correlate

from ops.lab.signals import FRAME, RATE_HZ, Positions, Signal, active, cut, frame_starts, levels_dbfs, mel_db

STEP = FRAME // 2  # of the spectrogram in which windows are sought: 5 ms
WINDOW = RATE_HZ // 2
WINDOW_EVERY = RATE_HZ // 4
WANDERS = RATE_HZ // 10  # from where the last one leads to; twice as far after each that was not found
FURTHEST = 8 * WANDERS
FOUND = 0.6  # likeness of spectrograms
FOUND_AFAR = 0.7  # where more places are sought
SURE = 0.5  # likeness of waveforms
FINE = round(0.006 * RATE_HZ)
MOSTLY = 0.5  # of the windows in which somebody speaks
APART = (RATE_HZ // 2, 2 * RATE_HZ)  # windows whose lags tell a speed: nearer ones tell little, others a jump between
LONG_ENOUGH = 3 * RATE_HZ  # in less, a jitter buffer that catches up looks like a clock that runs fast


@dataclass(frozen=True, slots=True)
class Alignment:
    """`times` are samples of what was said, [windows], `lags` how many later each was found in what was heard."""

    times: Signal
    lags: Signal
    sought: int  # windows

    @property
    def found(self) -> bool:
        return bool(len(self.times)) and len(self.times) >= MOSTLY * self.sought

    @property
    def drift_pct(self) -> float:
        """How much longer the recording took than what was said; NaN where it is too short to tell.

        The median slope of the lags of windows that are near each other (Theil-Sen's, of those pairs), so that a
        jitter buffer's jumps do not count.
        """
        if not self.found or self.times[-1] - self.times[0] < LONG_ENOUGH:
            return math.nan
        sooner, later = np.triu_indices(len(self.times), 1)
        apart = self.times[later] - self.times[sooner]
        slopes = (self.lags[later] - self.lags[sooner]) / apart
        near = slopes[(apart >= APART[0]) & (apart <= APART[1])]
        return 100 * float(np.median(near)) if len(near) else math.nan

    def heard_at(self, starts: Positions) -> Positions:
        """Where in the recording those samples of what was said are."""
        return starts + np.round(np.interp(starts, self.times, self.lags)).astype(np.int64)


def align(said: Signal, heard: Signal) -> Alignment:
    """Both [n] at RATE_HZ. What cannot be found leaves an alignment without windows."""
    said_mel, heard_mel = (mel_db(signal, np.arange(0, len(signal), STEP)) for signal in (said, heard))
    speaks = active(levels_dbfs(said, frame_starts(said)))
    starts = [at for at in range(0, len(said) - WINDOW + 1, WINDOW_EVERY) if _share(speaks, at) > 0.5]
    if not starts or len(heard_mel) < WINDOW // STEP:
        return Alignment(np.zeros(0), np.zeros(0), len(starts))
    lag = _coarse_lag(said_mel, heard_mel) * STEP
    times, lags, wanders = [], [], WANDERS
    for start in starts:
        near = round(start + lag - wanders) // STEP, round(start + lag + wanders) // STEP
        place, likeness = _place(heard_mel, said_mel[start // STEP :][: WINDOW // STEP], near)
        if likeness < (FOUND if wanders == WANDERS else FOUND_AFAR):
            wanders = min(2 * wanders, FURTHEST)
            continue
        wanders = WANDERS
        lag = round(place * STEP) - start
        times.append(float(start + WINDOW // 2))
        lags.append(_fine_lag(said, heard, start, lag))
    return Alignment(np.array(times), _without_outliers(np.array(lags)), len(starts))


def _share(speaks: npt.NDArray[np.bool_], start: int) -> float:
    return float(np.mean(speaks[start // FRAME :][: WINDOW // FRAME]))


def _coarse_lag(said: npt.NDArray[np.float64], heard: npt.NDArray[np.float64]) -> int:
    """In steps: where the whole lies best, which may be before the recording begins."""
    said, heard = said - said.mean(axis=0), heard - heard.mean(axis=0)
    length = 1 << (len(said) + len(heard)).bit_length()
    spectra = np.fft.rfft(heard, length, axis=0) * np.conj(np.fft.rfft(said, length, axis=0))
    products = np.fft.irfft(spectra.sum(axis=1), length)
    lag = int(np.argmax(products))
    return lag if lag < len(heard) else lag - length


def _place(
    heard: npt.NDArray[np.float64], window: npt.NDArray[np.float64], near: tuple[int, int]
) -> tuple[float, float]:
    """The step, and parts of one, at which `window` resembles `heard` most; and how much, from -1 to 1."""
    first, last = max(0, near[0]), min(len(heard) - len(window), near[1])
    if last < first:
        return 0.0, -1.0
    likenesses = np.array([_likeness(window, heard[at : at + len(window)]) for at in range(first, last + 1)])
    best = int(np.argmax(likenesses))
    return first + best + _summit(likenesses, best), float(likenesses[best])


def _likeness(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float(np.sum(one * other) / max(np.sqrt(np.sum(one**2) * np.sum(other**2)), 1e-12))


def _summit(values: npt.NDArray[np.float64], at: int) -> float:
    """How far beside `at` the parabola through it and its neighbours has its summit."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = values[at - 1 : at + 2]
    bend = before - 2 * here + after
    return 0.0 if bend >= 0 else float((before - after) / (2 * bend))


def _fine_lag(said: Signal, heard: Signal, start: int, lag: int) -> float:
    """To a sample where the waveforms are alike, else `lag` as it is."""
    window = said[start : start + WINDOW]
    field = cut(heard, np.array([start + lag - FINE]), WINDOW + 2 * FINE)[0]
    products = correlate(field, window, "valid", method="fft")
    summed = np.concatenate([[0.0], np.cumsum(field**2)])
    energies = summed[WINDOW:] - summed[: len(products)]
    likenesses = products / np.sqrt(np.maximum(energies * np.sum(window**2), 1e-12))
    best = int(np.argmax(likenesses))
    return float(lag - FINE + best) if likenesses[best] >= SURE else float(lag)


def _without_outliers(lags: Signal) -> Signal:
    """The median of each and its neighbours."""
    if len(lags) < 3:
        return lags
    return np.asarray(np.median(np.stack([np.r_[lags[0], lags[:-1]], lags, np.r_[lags[1:], lags[-1]]]), axis=0))
