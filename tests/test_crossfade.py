import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.audio import TTS_RATE_HZ, FloatSamples
from daemons.crossfade import OverlapAdd, crossfaded, fade_in

OVERLAP = 480
Ramp = npt.NDArray[np.float64]


def hamming(samples: int) -> tuple[Ramp, Ramp]:
    """(fade-in, fade-out) as a demo had them: the two halves of one Hamming window."""
    window = np.hamming(2 * samples)
    return window[:samples], window[samples:]


def half_hann(samples: int) -> tuple[Ramp, Ramp]:
    ramp = fade_in(samples)
    return ramp, 1 - ramp


def tone(samples: int, hz: float = 220.0, level: float = 0.5) -> FloatSamples:
    wave: FloatSamples = (level * np.sin(2 * np.pi * hz * np.arange(samples) / TTS_RATE_HZ)).astype(np.float32)
    return wave


@given(st.integers(1, 5_000))
def test_the_two_gains_sum_to_exactly_one(samples: int) -> None:
    rising, falling = half_hann(samples)
    assert np.array_equal(rising + falling, np.ones(samples))
    assert np.allclose(falling, rising[::-1])


def test_a_hamming_window_does_not() -> None:
    rising, falling = hamming(OVERLAP)
    assert (rising + falling).max() == pytest.approx(1.08, abs=0.001)
    assert rising[0] == pytest.approx(0.08)  # what is left at the seam, and clicks there
    assert half_hann(OVERLAP)[0][0] < 1e-5


@pytest.mark.parametrize(("ramps", "is_clean"), [(half_hann, True), (hamming, False)])
def test_windows_of_one_signal_give_the_signal_back(ramps: object, is_clean: bool) -> None:
    assert callable(ramps)
    signal = tone(3 * OVERLAP)
    rising, falling = ramps(OVERLAP)
    seam = signal[OVERLAP : 2 * OVERLAP]
    error_db = 20 * np.log10(np.abs(seam * falling + seam * rising - seam).max() / 0.5 + 1e-12)
    assert (error_db < -120) == is_clean
    if not is_clean:
        assert error_db > -25


@given(st.lists(st.integers(OVERLAP, 3_000), min_size=1, max_size=6))
def test_overlapping_windows_of_one_signal_are_the_signal(lengths: list[int]) -> None:
    steps = [length - OVERLAP for length in lengths]
    signal = tone(sum(steps) + OVERLAP)
    stream = OverlapAdd(OVERLAP)
    starts = np.cumsum([0, *steps[:-1]])
    parts = [stream.push(signal[at : at + length]) for at, length in zip(starts, lengths, strict=True)]
    joined = np.concatenate([*parts, stream.end()])
    assert len(joined) == len(signal)
    assert np.abs(joined - signal).max() < 1e-6


def test_a_seam_between_two_signals_has_no_click() -> None:
    """The same tones set end to end jump."""
    low, high = tone(4_800, 220), tone(4_800, 330)
    stream = OverlapAdd(OVERLAP)
    joined = np.concatenate([stream.push(low), stream.push(high), stream.end()])
    cut = np.concatenate([low[:-300], high[:-100], low[100:]])
    assert np.abs(np.diff(joined, 2)).max() < 1.1 * np.abs(np.diff(high, 2)).max()
    assert np.abs(np.diff(cut, 2)).max() > 5 * np.abs(np.diff(high, 2)).max()


def test_what_is_held_comes_at_the_end_once() -> None:
    stream = OverlapAdd(10)
    assert len(stream.push(np.ones(30, np.float32))) == 20
    assert len(stream.end()) == 10
    assert len(stream.end()) == 0


def test_windows_that_cannot_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="9 samples"):
        OverlapAdd(10).push(np.zeros(9, np.float32))
    with pytest.raises(ValueError, match="3 samples"):
        crossfaded(np.zeros(3, np.float32), np.zeros(4, np.float32))
