"""What the talker, its code predictor and the codec's transformer are all built of.

After `qwen_tts/core/models/modeling_qwen3_tts.py` and `…/tokenizer_12hz/modeling_qwen3_tts_tokenizer_v2.py` of
qwen-tts 0.1.1 (Apache-2.0), which computes the same.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class RmsNorm(nn.Module):
    """Root mean square norm over the last dimension, computed in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        exact = hidden.float()
        normed = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + self._eps)
        return self.weight * normed.to(hidden.dtype)


class GatedMlp(nn.Module):
    """SwiGLU without biases: [..., size] → [..., size]."""

    def __init__(self, size: int, inner_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(size, inner_size, bias=False)
        self.up_proj = nn.Linear(size, inner_size, bias=False)
        self.down_proj = nn.Linear(inner_size, size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        gated: Tensor = self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return gated


def inverse_frequencies(head_size: int, theta: float) -> Tensor:
    """Of rotary embeddings: float32 [head_size / 2]."""
    return 1.0 / theta ** (torch.arange(0, head_size, 2, dtype=torch.int64).float() / head_size)


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of `states` [batch, heads, positions, head_size]; `cos` and `sin` broadcast to it."""
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin
