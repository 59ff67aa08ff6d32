"""Whisper's log-mel picture of the last eight seconds of speech, in numpy alone.

As transformers' WhisperFeatureExtractor(chunk_length=8, do_normalize=True) makes it of samples padded at the left.
"""

from functools import cache

import numpy as np
import numpy.typing as npt

from daemons.audio import STT_RATE_HZ, FloatSamples

SECONDS = 8
BANDS = 80
FFT_SAMPLES = 400
HOP_SAMPLES = 160
FRAMES = SECONDS * STT_RATE_HZ // HOP_SAMPLES
POWER_FLOOR = 1e-10
VARIANCE_FLOOR = 1e-7
RANGE = 8.0  # decades below the loudest value

# Slaney's mel scale: linear below 1 kHz, logarithmic above
HZ_PER_MEL = 200 / 3
KNEE_MEL = 15.0
KNEE_HZ = KNEE_MEL * HZ_PER_MEL
LOG_STEP = np.log(6.4) / 27


def log_mel(samples: FloatSamples) -> FloatSamples:
    """float32 [80, 800], one column each 10 ms, of the end of `samples` (float32 [n], 16 kHz); silence before them."""
    last = samples[-SECONDS * STT_RATE_HZ :]
    padded = np.zeros(SECONDS * STT_RATE_HZ, np.float32)
    padded[len(padded) - len(last) :] = last
    normal = (padded - padded.mean()) / np.sqrt(padded.var() + VARIANCE_FLOOR)
    around = np.pad(normal, FFT_SAMPLES // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(around, FFT_SAMPLES)[::HOP_SAMPLES][:FRAMES]
    spectra = np.fft.rfft(frames * _window())
    power = spectra.real**2 + spectra.imag**2
    log_power = np.log10(np.maximum(power @ _filters(), POWER_FLOOR))
    scaled = (np.maximum(log_power, log_power.max() - RANGE) + 4) / 4
    return np.ascontiguousarray(scaled.T, np.float32)


@cache
def _window() -> FloatSamples:
    """Hann's, periodic."""
    return np.hanning(FFT_SAMPLES + 1)[:-1].astype(np.float32)


@cache
def _filters() -> FloatSamples:
    """[201, 80]: triangles over the bins of the spectrum, each with the same area."""
    edges_hz = _hz(np.linspace(0, _mel(STT_RATE_HZ / 2), BANDS + 2))
    bins_hz = np.linspace(0, STT_RATE_HZ / 2, FFT_SAMPLES // 2 + 1)
    distance_hz = edges_hz - bins_hz[:, np.newaxis]
    widths_hz = np.diff(edges_hz)
    rising = -distance_hz[:, :-2] / widths_hz[:-1]
    falling = distance_hz[:, 2:] / widths_hz[1:]
    heights = 2 / (edges_hz[2:] - edges_hz[:-2])
    filters: FloatSamples = (np.maximum(0, np.minimum(rising, falling)) * heights).astype(np.float32)
    return filters


def _mel(hz: float) -> float:
    return float(KNEE_MEL + np.log(hz / KNEE_HZ) / LOG_STEP) if hz >= KNEE_HZ else hz / HZ_PER_MEL


def _hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel < KNEE_MEL, mel * HZ_PER_MEL, KNEE_HZ * np.exp(LOG_STEP * (mel - KNEE_MEL)))
