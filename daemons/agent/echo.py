"""The agent's own voice, come back through the caller's loudspeaker and microphone: it must not interrupt itself.

It is told by likeness: what is heard is an echo when a stretch of what was played resembles it, however late, which
needs nothing learned of the way in between, and so holds from the first word and through every change of a network's
delay. A canceller has to learn that way; until it has, and where there is no echo at all, it takes from the caller's
own words (WebRTC's silences who speaks over the agent for up to a second).
"""

import numpy as np
import numpy.typing as npt

from daemons.audio import STT_RATE_HZ, TTS_RATE_HZ, Samples
from daemons.clock import Clock

RATE_HZ = 8000
COMPARED_S = 0.512
LATEST_S = 1.0  # after it was sent: playout's queue, both ways through the network, both jitter buffers
ALIKE = 0.33  # in recorded calls 1 % of echoes were less so, and 3 % of callers who spoke over the agent were more
TAPS = 25  # of the filter before every second or third sample is taken: soxr's holds 100 ms back, too late for a word
SILENCE_LEVEL = 5.0  # rms of int16: what is softer resembles nothing

_COMPARED = round(COMPARED_S * RATE_HZ)
_PLAYED = _COMPARED + round(LATEST_S * RATE_HZ)
_TRANSFORM = 1 << (_PLAYED - 1).bit_length()
_SILENCE_ENERGY = _COMPARED * SILENCE_LEVEL**2


class Echo:
    """What was played lies on the clock as it was sent; what is heard is compared with the last second and a half."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._played = _Recent(TTS_RATE_HZ, _PLAYED)
        self._heard = _Recent(STT_RATE_HZ, _COMPARED)
        self._played_until_ns = clock.now_ns()

    def play(self, samples: Samples) -> None:
        """int16 [n] at 24 kHz that the caller is about to hear."""
        self._pass_time()
        self._played.add(samples)
        self._played_until_ns += round(len(samples) / TTS_RATE_HZ * 1e9)

    def hear(self, samples: Samples) -> None:
        """int16 [n] at 16 kHz from the caller's microphone."""
        self._heard.add(samples)

    def is_heard(self) -> bool:
        """Whether the last half second from the microphone is what was played, rather than the caller."""
        self._pass_time()
        heard, played = self._heard.samples, self._played.samples
        return bool(played.any()) and likeness(heard, played) >= ALIKE

    def _pass_time(self) -> None:
        """Where nothing is played there is silence."""
        behind_ns = self._clock.now_ns() - self._played_until_ns
        if behind_ns > 0:
            self._played.add(np.zeros(min(round(behind_ns * TTS_RATE_HZ / 1e9), TTS_RATE_HZ * 2), np.int16))
            self._played_until_ns += behind_ns


def likeness(heard: npt.NDArray[np.float64], played: npt.NDArray[np.float64]) -> float:
    """The normalised cross-correlation of `heard`, [n], with the stretch of `played`, [m ≥ n], which resembles it most.

    Between 0 and 1; its square is the share of `heard` that a scaled copy of the stretch makes up.
    """
    spectrum = np.fft.rfft(played, _TRANSFORM) * np.conj(np.fft.rfft(heard, _TRANSFORM))
    products = np.fft.irfft(spectrum, _TRANSFORM)[: len(played) - len(heard) + 1]
    summed = np.concatenate([[0.0], np.cumsum(played**2)])
    energies = summed[len(heard) :] - summed[: len(products)]
    norms = np.sqrt((energies + _SILENCE_ENERGY) * (np.sum(heard**2) + _SILENCE_ENERGY))
    return float(np.max(np.abs(products) / norms))


class _Recent:
    """The last samples of a stream, float64 [length] at RATE_HZ.

    They are differences of neighbours: speech is loudest where voices differ least, and this evens it out.
    """

    def __init__(self, rate_hz: int, length: int) -> None:
        self._step = rate_hz // RATE_HZ
        self._filter = np.hamming(TAPS) * np.sinc((np.arange(TAPS) - (TAPS - 1) / 2) / self._step) / self._step
        self._before = np.zeros(TAPS - 1)
        self._skip = 0
        self._last = 0.0
        self.samples = np.zeros(length)

    def add(self, samples: Samples) -> None:
        joined = np.concatenate([self._before, samples])
        self._before = joined[-(TAPS - 1) :]
        resampled = np.convolve(joined, self._filter, "valid")[self._skip :: self._step]
        self._skip = (self._skip - len(samples)) % self._step
        if len(resampled):
            differences = np.diff(resampled, prepend=self._last)
            self._last = float(resampled[-1])
            self.samples = np.concatenate([self.samples, differences])[-len(self.samples) :]
