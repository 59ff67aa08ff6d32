"""Causal layers that take what they carried over from the step before, and leave what they carry to the next.

A stream that has just begun carries zeros everywhere, which is upstream's causal padding: so one step over a whole
stream is upstream's forward pass, and many steps compute the same. After `Qwen3TTSTokenizerV2CausalConvNet` and
`Qwen3TTSTokenizerV2CausalTransConvNet` in `qwen_tts/core/tokenizer_12hz/modeling_qwen3_tts_tokenizer_v2.py`.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional


class Carrying(nn.Module):
    """A layer that carries a tensor [batch, *carried] from each step to the next, if that has any elements."""

    carried: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step finds and leaves, by layer. `past` is only read: a step that fails has changed nothing."""

    past: dict[Carrying, Tensor]
    future: dict[Carrying, Tensor] = field(default_factory=dict)


class CausalConv(Carrying):
    """Float [batch, channels, positions] → [batch, outputs, positions]; carries the inputs that its kernel reaches."""

    def __init__(self, channels: int, outputs: int, kernel: int, *, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, outputs, kernel, dilation=dilation, groups=groups)
        self._reach = (kernel - 1) * dilation
        self.carried = (channels, self._reach)

    def forward(self, hidden: Tensor, step: Step) -> Tensor:
        if self._reach:
            positions = hidden.shape[-1]
            hidden = torch.cat((step.past[self], hidden), dim=-1)
            step.future[self] = hidden[..., positions:]
        convolved: Tensor = self.conv(hidden)
        return convolved


class CausalTransposedConv(Carrying):
    """Float [batch, channels, positions] → [batch, outputs, positions · stride].

    Carries what its last inputs add to outputs that are not due yet. The bias is added when an output is due: in the
    overlap it would count twice.
    """

    def __init__(self, channels: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, outputs, kernel, stride)
        self._stride = stride
        self._overlap = kernel - stride
        self.carried = (outputs, self._overlap)

    def forward(self, hidden: Tensor, step: Step) -> Tensor:
        due = hidden.shape[-1] * self._stride
        if not self._overlap:
            convolved: Tensor = self.conv(hidden)
            return convolved
        spread = functional.conv_transpose1d(hidden, self.conv.weight, None, self._stride)
        spread[..., : self._overlap] += step.past[self]
        step.future[self] = spread[..., due:]
        return spread[..., :due] + self.conv.bias[:, None]
