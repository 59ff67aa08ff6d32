"""For a codec whose state cannot be had: each packet is decoded anew with some frames before it.

What is farther back is forgotten, so this is not exact: the published decoder looks 568 frames back.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from daemons.crossfade import OverlapAdd

if TYPE_CHECKING:
    from daemons.audio import FloatSamples


class WindowedDecoder:
    """One stream. Neighbouring windows are joined by a crossfade, which the audio is late by."""

    def __init__(
        self, decode: Callable[[Tensor], Tensor], *, frame_samples: int, context_frames: int, overlap_samples: int
    ) -> None:
        """`decode`: codes, int64 [1, codebooks, n], → float32 [1, n · frame_samples].

        Raises ValueError unless 1 ≤ context_frames and 0 ≤ overlap_samples ≤ frame_samples.
        """
        if context_frames < 1:
            raise ValueError(f"a window with {context_frames} frames of context forgets all that was")
        if not 0 <= overlap_samples <= frame_samples:
            raise ValueError(f"windows overlap by 0 to {frame_samples} samples, not by {overlap_samples}")
        self._decode = decode
        self._frame_samples = frame_samples
        self._context_frames = context_frames
        self._overlap_samples = overlap_samples
        self._context: Tensor | None = None
        self._joined = OverlapAdd(overlap_samples)

    def push(self, codes: Tensor) -> "FloatSamples":
        """Decode int64 [codebooks, n ≥ 1]. The last `overlap_samples` of what is known are held back: float32 [m]."""
        window = codes if self._context is None else torch.cat((self._context, codes), dim=1)
        known = window.shape[1] - codes.shape[1]
        audio = self._decode(window[None])[0].cpu().numpy()
        overlap = self._overlap_samples if known else 0
        settled = self._joined.push(audio[known * self._frame_samples - overlap :])
        self._context = window[:, -self._context_frames :]
        return settled

    def end(self) -> "FloatSamples":
        """What was held back: with it, n frames are n · frame_samples samples."""
        return self._joined.end()
