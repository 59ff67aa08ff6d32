import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.audio import FloatSamples
from daemons.stt.speech import PAUSE_SAMPLES, cut_at_pauses


@given(length=st.integers(0, 50_000), longest=st.integers(1_000, 20_000))
def test_the_parts_are_all_of_it_in_order_and_none_too_long(length: int, longest: int) -> None:
    parts = list(cut_at_pauses(np.zeros(length, np.float32), longest))
    assert [start for start, _ in parts[1:]] == [end for _, end in parts[:-1]]
    assert all(0 < end - start <= longest for start, end in parts)
    assert sum(end - start for start, end in parts) == length


@pytest.mark.parametrize("pause_at", [8_000, 11_000, 14_000])
def test_the_cut_lies_in_the_pause(pause_at: int) -> None:
    samples: FloatSamples = np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    samples[pause_at : pause_at + PAUSE_SAMPLES] = 0
    [first, _] = cut_at_pauses(samples, 19_000)
    assert pause_at <= first[1] <= pause_at + PAUSE_SAMPLES
