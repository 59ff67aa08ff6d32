"""The causal transformer that the talker and its code predictor are: Qwen3's, with keys and values kept in a `Cache`.

The talker's checkpoint asks for multimodal rotary positions (three sections, interleaved), but speech has the same
position in all three sections, whereby they are ordinary rotary positions, however the sections lie.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from daemons.tts.engines.qwen3.cache import Cache
from daemons.tts.engines.qwen3.config import TransformerConfig
from daemons.tts.engines.qwen3.layers import GatedMlp, RmsNorm, inverse_frequencies, rotate


class Rotary(nn.Module):
    """Positions int64 [rows, new] → cosine and sine, each [rows, 1, new, head_size], computed in float32."""

    frequencies: Tensor

    def __init__(self, head_size: int, theta: float) -> None:
        super().__init__()
        self._head_size, self._theta = head_size, theta
        self.register_buffer("frequencies", inverse_frequencies(head_size, theta), persistent=False)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        angles = positions[:, None, :, None].float() * self.frequencies
        angles = torch.cat((angles, angles), -1)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """A model that becomes bfloat16 would round the frequencies, and one without memory yet has none."""
        super()._apply(fn, recurse)
        if (device := self.frequencies.device).type != "meta":
            self.frequencies = inverse_frequencies(self._head_size, self._theta).to(device)
        return self


class Attention(nn.Module):
    """Grouped-query attention with norms on each head's queries and keys, after `Qwen3TTSTalkerAttention`."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self._layer = layer
        self._heads, self._key_value_heads, self._head_size = config.heads, config.key_value_heads, config.head_size
        query_size, key_size = config.heads * config.head_size, config.key_value_heads * config.head_size
        self.q_proj = nn.Linear(config.hidden_size, query_size, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key_size, bias=False)
        self.o_proj = nn.Linear(query_size, config.hidden_size, bias=False)
        self.q_norm = RmsNorm(config.head_size, config.norm_eps)
        self.k_norm = RmsNorm(config.head_size, config.norm_eps)

    def forward(
        self, hidden: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: Cache
    ) -> Tensor:
        """`hidden` [rows, new, hidden_size]; `mask` [rows, 1, queries of a group, held], 0 or -inf."""
        rows, new, _ = hidden.shape
        queries = self.q_norm(self.q_proj(hidden).view(rows, new, self._heads, self._head_size))
        keys = self.k_norm(self.k_proj(hidden).view(rows, new, self._key_value_heads, self._head_size))
        values = self.v_proj(hidden).view(rows, new, self._key_value_heads, self._head_size)
        queries = rotate(queries.transpose(1, 2), cos, sin)
        keys = rotate(keys.transpose(1, 2), cos, sin)
        keys, values = cache.extend(self._layer, keys, values.transpose(1, 2), positions)
        # The queries that share keys become one longer query: nothing is repeated in memory.
        shared = queries.reshape(rows, self._key_value_heads, -1, self._head_size)
        scores = shared @ keys.transpose(2, 3) * (1 / math.sqrt(self._head_size)) + mask
        weights = scores.softmax(-1, dtype=torch.float32).to(values.dtype)
        mixed = (weights @ values).view(rows, self._heads, new, self._head_size)
        output: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, new, -1))
        return output


class Layer(nn.Module):
    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        self.mlp = GatedMlp(config.hidden_size, config.inner_size)
        self.input_layernorm = RmsNorm(config.hidden_size, config.norm_eps)
        self.post_attention_layernorm = RmsNorm(config.hidden_size, config.norm_eps)

    def forward(
        self, hidden: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: Cache
    ) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), positions, cos, sin, mask, cache)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Transformer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self._groups = config.heads // config.key_value_heads
        self.layers = nn.ModuleList([Layer(config, layer) for layer in range(config.layers)])
        self.norm = RmsNorm(config.hidden_size, config.norm_eps)
        self.rotary = Rotary(config.head_size, config.rope_theta)

    def forward(self, embeddings: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """[rows, new, hidden_size] at `positions` int64 [rows, new] → the same, normed; `cache` has them then."""
        cos, sin = self.rotary(positions, embeddings.dtype)
        hides = ~cache.visible(positions)
        mask = torch.zeros_like(hides, dtype=embeddings.dtype).masked_fill_(hides, -torch.inf)
        mask = mask.repeat(1, self._groups, 1)[:, None]
        hidden = embeddings
        for layer in self.layers:
            hidden = layer(hidden, positions, cos, sin, mask, cache)
        normed: Tensor = self.norm(hidden)
        return normed
