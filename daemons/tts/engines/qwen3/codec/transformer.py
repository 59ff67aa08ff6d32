"""The codec's transformer: each frame attends to the last `sliding_window` ones.

After `Qwen3TTSTokenizerV2DecoderTransformerModel` in
`qwen_tts/core/tokenizer_12hz/modeling_qwen3_tts_tokenizer_v2.py`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from daemons.tts.engines.qwen3.codec.config import CodecConfig
from daemons.tts.engines.qwen3.codec.streaming import Carrying, Step
from daemons.tts.engines.qwen3.layers import GatedMlp, RmsNorm, inverse_frequencies, rotate


@dataclass(frozen=True, slots=True)
class _Sight:
    """What the frames of a step see, the same for every layer: `keys` = carried frames + new ones."""

    cos: Tensor  # [keys, head_dim]
    sin: Tensor
    mask: Tensor  # bool [batch, 1, new, keys]


class Transformer(nn.Module):
    """Float [batch, new, latent_dim] → the same."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.input_proj = nn.Linear(config.latent_dim, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.output_proj = nn.Linear(config.hidden_size, config.latent_dim)
        self._config = config

    def forward(self, latent: Tensor, frames: Tensor, step: Step) -> Tensor:
        """`frames`: int64 [batch], how many each stream has behind it."""
        hidden = self.input_proj(latent)
        sight = self._sight(hidden, frames)
        for layer in self.layers:
            hidden = layer(hidden, sight, step)
        projected: Tensor = self.output_proj(self.norm(hidden))
        return projected

    def _sight(self, hidden: Tensor, frames: Tensor) -> _Sight:
        # Attention knows the distance of two frames only. So keys are carried as they were before their rotation, and
        # each step counts its positions from the oldest of them: angles stay small and exact however long a stream is.
        device = hidden.device
        carried, new = self._config.sliding_window - 1, hidden.shape[1]
        key = torch.arange(carried + new, device=device)
        with device:
            frequencies = inverse_frequencies(self._config.head_dim, self._config.rope_theta)
        angles = torch.outer(key.double(), frequencies.double()).repeat(1, 2)
        distance = key[carried:, None] - key
        is_near = (distance >= 0) & (distance <= carried)
        has_been = key >= carried - frames[:, None]
        return _Sight(
            angles.cos().to(hidden.dtype),
            angles.sin().to(hidden.dtype),
            is_near & has_been[:, None, None, :],
        )


class _Attention(Carrying):
    """Carries the keys and values of the frames that the next one attends to."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        size = config.num_attention_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, size, bias=False)
        self.o_proj = nn.Linear(size, config.hidden_size, bias=False)
        self._heads = (config.num_attention_heads, config.head_dim)
        self.carried = (2, config.num_attention_heads, config.sliding_window - 1, config.head_dim)

    def forward(self, hidden: Tensor, sight: _Sight, step: Step) -> Tensor:
        new = hidden.shape[1]
        query, key, value = (
            projection(hidden).unflatten(-1, self._heads).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        held = torch.cat((step.past[self], torch.stack((key, value), dim=1)), dim=3)
        step.future[self] = held[..., new:, :]
        keys, values = held.unbind(1)
        attended = functional.scaled_dot_product_attention(
            rotate(query, sight.cos[-new:], sight.sin[-new:]),
            rotate(keys, sight.cos, sight.sin),
            values,
            attn_mask=sight.mask,
        )
        projected: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return projected


class _LayerScale(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.scale * hidden


class _Layer(nn.Module):
    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = _Attention(config)
        self.self_attn_layer_scale = _LayerScale(config.hidden_size)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = GatedMlp(config.hidden_size, config.intermediate_size)
        self.mlp_layer_scale = _LayerScale(config.hidden_size)

    def forward(self, hidden: Tensor, sight: _Sight, step: Step) -> Tensor:
        attended = self.self_attn(self.input_layernorm(hidden), sight, step)
        hidden = hidden + self.self_attn_layer_scale(attended)
        thought: Tensor = self.mlp_layer_scale(self.mlp(self.post_attention_layernorm(hidden)))
        return hidden + thought
