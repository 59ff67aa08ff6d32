"""What is measured on speech: likeness, clicks, levels, pitch, pauses, repetitions and breaks. int16 [n] at 24 kHz."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from daemons.audio import TTS_RATE_HZ, Samples, level_dbfs

Floats = npt.NDArray[np.float64]

PITCH_STEP = TTS_RATE_HZ // 200
_WINDOW = round(0.06 * TTS_RATE_HZ)
_LOWEST_HZ, _HIGHEST_HZ = 90, 350
_NEARLY = 0.9
_BATCH = 256
_VOICED = 0.5  # of the autocorrelation's peak at zero
_AUDIBLE = 130  # -48 dBFS
_QUIET_DBFS = -42.0  # of 5 ms, in a pause
SAME_SNR_DB = 120.0  # said of two that are equal


def snr_db(heard: Samples, golden: Samples, lag: int = 0) -> float:
    """Of the golden one's energy by that of the difference, over the length of both together.

    `lag`: how many samples `heard` may be shifted either way to fit best.
    """
    n = max(len(heard), len(golden))
    if not n:
        return SAME_SNR_DB
    a, b = np.zeros(n + 2 * lag), np.zeros(n + 2 * lag)
    a[lag : lag + len(heard)] = heard
    b[lag : lag + len(golden)] = golden
    best = min(float(np.sum((np.roll(a, shift) - b) ** 2)) for shift in range(-lag, lag + 1))
    energy = float(np.sum(b**2))
    return SAME_SNR_DB if best == 0 else 10 * float(np.log10(max(energy, 1e-9) / best))


def snr_in_db(part: Samples, whole: Samples, place: int, reach_ms: float = 10) -> float:
    """Of `part` as a copy of what stands in `whole` at about `place`, where it fits best."""
    start, reach = max(0, place - _count(reach_ms)), 2 * _count(reach_ms)
    sought, wanted = whole[start : start + len(part) + reach].astype(np.float64), part.astype(np.float64)
    if len(sought) < len(wanted) or not len(wanted):
        return float("nan")
    energy = np.concatenate([[0.0], np.cumsum(sought**2)])
    energy = energy[len(wanted) :] - energy[: len(energy) - len(wanted)]
    error = np.sum(wanted**2) + energy - 2 * np.correlate(sought, wanted)
    best = int(np.argmin(error))
    return min(SAME_SNR_DB, 10 * float(np.log10(max(energy[best], 1.0) / max(error[best], 1e-6))))


def click(samples: Samples, at: int, around_ms: float = 10) -> float:
    """The largest second difference around `at`, by the one that a thousandth of all samples exceeds."""
    bends = np.abs(np.diff(samples.astype(np.float64), 2))
    here = bends[max(0, at - _count(around_ms)) : at + _count(around_ms)]
    usual = float(np.quantile(bends, 0.999))
    return float(here.max()) / usual if len(here) and usual else 0.0


def level_step_db(samples: Samples, at: int, speech_ms: float = 100, reach_ms: float = 500) -> float:
    """How much louder what is said after `at` begins than what was said before it ends; pauses do not count."""
    reach = _count(reach_ms)
    before, after = samples[max(0, at - reach) : at][::-1], samples[at : at + reach]
    return _speech_dbfs(after, _count(speech_ms)) - _speech_dbfs(before, _count(speech_ms))


def _speech_dbfs(samples: Samples, most: int) -> float:
    """Of the first `most` samples that are no pause; NaN when there are none."""
    step = _count(5)
    steps = [samples[at : at + step] for at in range(0, len(samples), step)]
    speech = [part for part in steps if level_dbfs(part) >= _QUIET_DBFS][: most // step]
    return level_dbfs(np.concatenate(speech)) if speech else float("nan")


def pitch_hz(samples: Samples) -> Floats:
    """Each 5 ms, by autocorrelation over 60 ms; NaN where it is not voiced."""
    padded = np.pad(samples.astype(np.float64), (_WINDOW // 2, _WINDOW))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[: len(samples) : PITCH_STEP]
    batches = (windows[at : at + _BATCH] for at in range(0, len(windows), _BATCH))
    return np.concatenate([np.zeros(0), *map(_pitches, batches)])


def _pitches(windows: Floats) -> Floats:
    """Of each row of `windows` [n, _WINDOW]."""
    audible = np.sqrt(np.mean(windows**2, axis=1)) >= _AUDIBLE
    windows = windows - windows.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(windows, 2 * _WINDOW, axis=1)) ** 2
    shortest, longest = TTS_RATE_HZ // _HIGHEST_HZ, TTS_RATE_HZ // _LOWEST_HZ
    likeness = np.fft.irfft(power, axis=1)[:, : longest + 1]
    likeness /= np.maximum(likeness[:, :1], 1e-9) * (1 - np.arange(longest + 1) / _WINDOW)
    return np.array(
        [_first_period(row, shortest) if heard else np.nan for row, heard in zip(likeness, audible, strict=True)]
    )


def _first_period(likeness: Floats, shortest: int) -> float:
    """The pitch in Hz whose period is the first peak: its multiples are about as good. NaN when none is good enough."""
    sought = likeness[shortest:]
    at = int(np.argmax(sought >= _NEARLY * sought.max()))
    while at + 1 < len(sought) and sought[at + 1] > sought[at]:
        at += 1
    return TTS_RATE_HZ / (shortest + at) if sought[at] > _VOICED else float("nan")


@dataclass(frozen=True, slots=True)
class Melody:
    """The pitch on both sides of a place in speech, in semitones; NaN where there is none within 250 ms."""

    fall: float  # from the beginning of those 250 ms before to their end
    jump: float  # across

    @classmethod
    def at(cls, pitch: Floats, sample: int) -> "Melody":
        place, n = sample // PITCH_STEP, 50
        before, after = _voiced(pitch[max(0, place - n) : place]), _voiced(pitch[place : place + n])
        if len(before) < 5 or len(after) < 5:
            return cls(float("nan"), float("nan"))
        end = float(np.median(before[-6:]))
        return cls(_semitones(end, float(np.median(before[:6]))), _semitones(float(np.median(after[:6])), end))


def pause_ms(samples: Samples, at: int, reach_ms: float = 100) -> float:
    """The longest stretch of quiet that touches the surroundings of `at`."""
    step = _count(5)
    quiet = [level_dbfs(samples[start : start + step]) < _QUIET_DBFS for start in range(0, len(samples), step)]
    near = range((at - _count(reach_ms)) // step, (at + _count(reach_ms)) // step)
    longest, begin = 0, None
    for index, is_quiet in enumerate([*quiet, False]):
        if is_quiet and begin is None:
            begin = index
        elif not is_quiet and begin is not None:
            if begin < near.stop and index > near.start:
                longest = max(longest, index - begin)
            begin = None
    return longest * 5.0


def place_in(whole: Samples, part: Samples, expected: int, reach_ms: float = 800) -> tuple[int, float]:
    """(sample of `whole` where what sounds like `part` begins, likeness up to 1); sought around `expected`."""
    here, there = _spectra(part), _spectra(whole)
    step = _count(5)
    first = max(0, (expected - _count(reach_ms)) // step)
    last = min(len(there) - len(here), (expected + _count(reach_ms)) // step)
    if last < first:
        return expected, 0.0
    likeness = [
        float(np.sum(here * there[at : at + len(here)]))
        / float(np.linalg.norm(here) * np.linalg.norm(there[at : at + len(here)]) + 1e-9)
        for at in range(first, last + 1)
    ]
    best = int(np.argmax(likeness))
    return (first + best) * step, likeness[best]


def is_repeated(samples: Samples, begin: int, middle: int, end: int) -> bool:
    """Whether what is said from `middle` to `end` is what was said from `begin` to `middle` once more."""
    first, second = _spectra(samples[begin:middle]), _spectra(samples[middle:end])
    n = min(len(first), len(second))
    if n < 60 or abs(len(first) - len(second)) > n // 4:
        return False
    likeness = float(np.sum(first[:n] * second[:n])) / float(np.linalg.norm(first[:n]) * np.linalg.norm(second[:n]))
    return likeness > 0.8


def broken(samples: Samples) -> str:
    """What is wrong with audio that should be speech; "" when nothing is."""
    if len(samples) < TTS_RATE_HZ // 5:
        return "it is empty"
    if int(np.abs(samples.astype(int)).max()) < 1000:
        return "it is silent"
    if float(np.mean(np.abs(samples.astype(int)) >= 32766)) > 1e-4:
        return "it is clipped"
    if abs(float(samples.mean())) > 300:
        return "it has an offset"
    loud = np.flatnonzero(np.abs(samples.astype(int)) > _AUDIBLE)
    if int(np.diff(loud).max(initial=0)) > TTS_RATE_HZ:
        return "it has a hole of more than a second"
    return ""


def _spectra(samples: Samples) -> Floats:
    """Log spectra in 40 bands each 5 ms over 25 ms, [frames, 40], each without its mean."""
    n, step = _count(25), _count(5)
    if len(samples) < n:
        return np.zeros((0, 40))
    frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), n)[::step] * np.hanning(n)
    power = np.abs(np.fft.rfft(frames, 1024)) ** 2
    edges = np.unique(np.geomspace(4, 400, 41).astype(int))
    bands = np.log(np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1) + 1e4)
    bands -= bands.mean(axis=1, keepdims=True)
    return bands


def _voiced(pitch: Floats) -> Floats:
    found: Floats = pitch[~np.isnan(pitch)]
    return found


def _semitones(hz: float, than_hz: float) -> float:
    return 12 * float(np.log2(hz / than_hz))


def _count(ms: float) -> int:
    return round(ms * TTS_RATE_HZ / 1000)
