import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor  # noqa: E402

from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder  # noqa: E402
from daemons.tts.engines.qwen3.codec.windowed import WindowedDecoder  # noqa: E402
from tests.tts.qwen3.codec.streams import EXACT, TINY, random_codes  # noqa: E402

FloatSamples = npt.NDArray[np.float32]
SAMPLES = TINY.frame_samples
FRAMES = 175
RECEPTIVE_FRAMES = 2 * (TINY.sliding_window - 1) + 10  # of two layers, and of the convs before and after them


def windowed(
    decoder: IncrementalDecoder, codes: Tensor, packets: Sequence[int], *, context_frames: int, overlap_samples: int
) -> FloatSamples:
    windows = WindowedDecoder(
        decoder.decode, frame_samples=SAMPLES, context_frames=context_frames, overlap_samples=overlap_samples
    )
    parts = [windows.push(part) for part in codes[0].split(list(packets), dim=1)]
    return np.concatenate([*parts, windows.end()])


@pytest.mark.parametrize("overlap_samples", [0, 480, SAMPLES])
@pytest.mark.parametrize("packets", [[1] * 9, [9], [1, 2, 6], [5, 1, 3]])
@pytest.mark.parametrize("context_frames", [1, 4])
def test_every_sample_comes_once(
    decoder: IncrementalDecoder, packets: list[int], context_frames: int, overlap_samples: int
) -> None:
    codes = random_codes(1, 9, seed=1)
    audio = windowed(decoder, codes, packets, context_frames=context_frames, overlap_samples=overlap_samples)
    assert audio.dtype == np.float32
    assert len(audio) == 9 * SAMPLES


def test_what_the_next_window_may_change_is_held_back(decoder: IncrementalDecoder) -> None:
    windows = WindowedDecoder(decoder.decode, frame_samples=SAMPLES, context_frames=4, overlap_samples=480)
    lengths = [len(windows.push(random_codes(1, frames, seed=1)[0])) for frames in (1, 2)]
    assert lengths == [SAMPLES - 480, 2 * SAMPLES]
    assert len(windows.end()) == 480


def test_the_error_falls_with_the_context_and_ends_with_the_receptive_field(decoder: IncrementalDecoder) -> None:
    codes = random_codes(1, FRAMES, seed=2)
    exact = decoder.decode(codes)[0].numpy()
    packets = [RECEPTIVE_FRAMES, 4, 8, FRAMES - RECEPTIVE_FRAMES - 12]

    def error(context_frames: int) -> FloatSamples:
        audio = windowed(decoder, codes, packets, context_frames=context_frames, overlap_samples=480)
        difference: FloatSamples = audio - exact
        return difference

    levels_db = [20 * math.log10(float(np.std(error(frames)) / np.std(exact))) for frames in (8, 25, 72)]
    print(f"error with 8, 25, 72 frames of context: {', '.join(f'{level:.1f}' for level in levels_db)} dB")
    assert levels_db == sorted(levels_db, reverse=True)
    assert levels_db[1] > -60, "a context of 25 frames is heard"
    assert levels_db[2] > -100, "a context of 72 frames is not exact"
    assert np.abs(error(RECEPTIVE_FRAMES)).max() <= EXACT


def test_a_seam_fades_by_the_half_hann_ramp() -> None:
    """Two decodings that differ by a constant: between them lies the ramp itself."""
    levels = iter((0.0, 1.0))

    def decode(codes: Tensor) -> Tensor:
        return torch.full((1, codes.shape[2] * SAMPLES), next(levels))

    windows = WindowedDecoder(decode, frame_samples=SAMPLES, context_frames=1, overlap_samples=480)
    codes = random_codes(1, 1, seed=1)[0]
    audio = np.concatenate([windows.push(codes), windows.push(codes), windows.end()])
    ramp = np.sin(np.pi * (np.arange(480) + 0.5) / 960) ** 2
    assert np.allclose(audio[: SAMPLES - 480], 0)
    assert np.allclose(audio[SAMPLES - 480 : SAMPLES], ramp, atol=1e-7)
    assert np.allclose(audio[SAMPLES:], 1)


@pytest.mark.parametrize(("context_frames", "overlap_samples"), [(0, 480), (1, -1), (1, SAMPLES + 1)])
def test_windows_that_cannot_be_joined_are_refused(context_frames: int, overlap_samples: int) -> None:
    with pytest.raises(ValueError, match="window"):
        WindowedDecoder(
            lambda codes: codes,
            frame_samples=SAMPLES,
            context_frames=context_frames,
            overlap_samples=overlap_samples,
        )
