"""Recordings as the lab looks at them: float64 at 24 kHz, in frames of 10 ms, and their mel spectra."""

from functools import cache

import numpy as np
import numpy.typing as npt

from daemons.audio import SILENCE_DBFS, TTS_RATE_HZ, Pcm

Signal = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]

RATE_HZ = TTS_RATE_HZ
FRAME_MS = 10
FRAME = RATE_HZ * FRAME_MS // 1000
ACTIVE_WITHIN_DB = 30.0  # of the loudest frame
BANDS = 64
SPECTRUM = 1024
SPECTRUM_WINDOW = RATE_HZ * 25 // 1000
BINS_HZ = np.fft.rfftfreq(SPECTRUM, 1 / RATE_HZ)
LOWEST_HZ = 60.0
SPECTRAL_RANGE_DB = 60.0  # below the loudest band; what is softer is the codec's affair

_SILENCE_POWER = 10 ** (SILENCE_DBFS / 10)


def signal_of(pcm: Pcm) -> Signal:
    """[n] at RATE_HZ, full scale 1."""
    return pcm.resampled(RATE_HZ).samples.astype(np.float64) / 32768


def frame_starts(signal: Signal) -> Positions:
    """Where its whole frames begin."""
    return np.arange(0, len(signal) - FRAME + 1, FRAME)


def cut(signal: Signal, starts: Positions, length: int) -> npt.NDArray[np.float64]:
    """[frames, length]: what begins at each of `starts`; silence where the recording has ended, or not begun."""
    padded = np.pad(signal, length)
    inside = np.clip(starts + length, 0, len(padded) - length)
    return np.asarray(padded[inside[:, None] + np.arange(length)])


def levels_dbfs(signal: Signal, starts: Positions) -> Signal:
    """[frames]: the level of the 10 ms from each of `starts` on."""
    power: Signal = np.mean(cut(signal, starts, FRAME) ** 2, axis=1)
    return 10 * np.log10(np.maximum(power, _SILENCE_POWER))


def active(levels: Signal) -> npt.NDArray[np.bool_]:
    """[frames]: where somebody speaks, of a recording that has little noise."""
    return levels > max(np.max(levels, initial=SILENCE_DBFS) - ACTIVE_WITHIN_DB, SILENCE_DBFS)


def power_spectra(signal: Signal, starts: Positions) -> npt.NDArray[np.float64]:
    """[frames, len(BINS_HZ)]: of the 25 ms from each of `starts` on."""
    windows = cut(signal, starts, SPECTRUM_WINDOW) * np.hanning(SPECTRUM_WINDOW)
    return np.asarray(np.abs(np.fft.rfft(windows, SPECTRUM)) ** 2)


def mel_db(signal: Signal, starts: Positions) -> npt.NDArray[np.float64]:
    """[frames, BANDS]: the mel spectrum of the 25 ms around each frame that begins at `starts`, in dB."""
    power = power_spectra(signal, starts - (SPECTRUM_WINDOW - FRAME) // 2) @ _filters().T
    loudest = np.max(power, initial=_SILENCE_POWER)
    return 10 * np.log10(np.maximum(power, loudest * 10 ** (-SPECTRAL_RANGE_DB / 10)))


def mel_bands_hz() -> npt.NDArray[np.float64]:
    """[BANDS]: the middle of each."""
    return _corners_hz()[1:-1]


@cache
def _filters() -> npt.NDArray[np.float64]:
    """[BANDS, bins]: triangles from one corner over the next to the one after it."""
    lower, middle, upper = (_corners_hz()[at : at + BANDS, None] for at in range(3))
    rising, falling = (BINS_HZ - lower) / (middle - lower), (upper - BINS_HZ) / (upper - middle)
    return np.maximum(0.0, np.minimum(rising, falling))


def _corners_hz() -> npt.NDArray[np.float64]:
    """[BANDS + 2]: even steps on O'Shaughnessy's mel scale."""
    corners_mel = np.linspace(_mel(LOWEST_HZ), _mel(RATE_HZ / 2), BANDS + 2)
    return np.asarray(700 * (10 ** (corners_mel / 2595) - 1))


def _mel(hz: float) -> float:
    return float(2595 * np.log10(1 + hz / 700))
