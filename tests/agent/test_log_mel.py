"""Against transformers 5.23.0, WhisperFeatureExtractor(chunk_length=8), do_normalize=True, padded at the left."""

import numpy as np
import pytest

from daemons.agent.log_mel import log_mel
from daemons.audio import FloatSamples

BANDS = (0, 7, 20, 40, 60, 79)
FRAMES = (0, 400, 649, 650, 651, 700, 760, 799)
SHORT = [
    [-0.07267, -0.07267, 0.7739, 1.41129, 0.80541, 0.22264, 0.65789, 0.78776],
    [-0.07267, -0.07267, 0.69587, 1.43114, 0.94952, 1.66721, 0.60779, 0.85414],
    [-0.07267, -0.07267, 0.27462, 0.83645, 0.57138, 0.5182, 0.64279, 0.96272],
    [-0.07267, -0.07267, -0.00095, 0.64872, 0.5318, 0.51743, 0.60866, 0.63927],
    [-0.07267, -0.07267, -0.07267, 0.61711, 0.36275, 0.35795, 0.53663, 0.50138],
    [-0.07267, -0.07267, -0.07267, 0.51365, 0.54518, 0.54041, 0.6001, 0.56021],
]
LONG = [
    [1.16037, 0.07337, 0.69075, 1.28104, 0.7077, 0.07337, 0.48447, 0.61703],
    [1.25548, 1.48466, 0.63888, 1.17563, 0.79237, 1.48466, 0.42524, 0.67159],
    [1.08808, 0.33565, 0.68722, 1.16155, 0.6113, 0.33565, 0.46024, 0.78017],
    [0.68339, 0.33488, 0.43144, 0.68567, 0.37923, 0.33488, 0.42612, 0.45672],
    [0.40284, 0.1754, 0.32571, 0.6182, 0.2047, 0.1754, 0.35408, 0.31883],
    [0.40603, 0.35786, 0.37773, 0.3791, 0.3627, 0.35786, 0.41755, 0.37766],
]


def chirp() -> FloatSamples:
    """1.5 s: a swelling tone that rises, and something like noise."""
    n = np.arange(24_000)
    t = n / 16_000
    tone = 0.3 * np.sin(2 * np.pi * (200 * t + 150 * t * t)) * (1 + 0.5 * np.sin(2 * np.pi * 3 * t))
    samples: FloatSamples = (tone + 0.01 * np.sin(n**2 * 0.37)).astype(np.float32)
    return samples


@pytest.mark.parametrize(("samples", "reference"), [(chirp(), SHORT), (np.tile(chirp(), 6), LONG)])
def test_it_is_what_the_model_was_trained_on(samples: FloatSamples, reference: list[list[float]]) -> None:
    picture = log_mel(samples)
    assert picture.shape == (80, 800)
    assert picture.dtype == np.float32
    np.testing.assert_allclose(picture[np.ix_(BANDS, FRAMES)], reference, atol=2e-4)


def test_nothing_at_all_has_a_picture_too() -> None:
    assert np.isfinite(log_mel(np.zeros(0, np.float32))).all()
