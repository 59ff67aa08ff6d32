"""The codec's decoder. Parameters bear the published checkpoints' names, without the leading `decoder.`.

After `Qwen3TTSTokenizerV2Decoder` in `qwen_tts/core/tokenizer_12hz/modeling_qwen3_tts_tokenizer_v2.py` of qwen-tts
0.1.1 (Apache-2.0). What depends on the weights alone, and upstream computes in each pass, is computed here when they
are loaded: the codebooks' embeddings and the exponentials of SnakeBeta.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from daemons.tts.engines.qwen3.codec.config import CodecConfig
from daemons.tts.engines.qwen3.codec.streaming import CausalConv, CausalTransposedConv, Step
from daemons.tts.engines.qwen3.codec.transformer import Transformer

LEAST_USAGE = 1e-5
"""What a codebook's entry counts as used at least."""
SNAKE_EPS = 1e-9
DILATIONS = (1, 3, 9)


class Decoder(nn.Module):
    """Codes to audio, one step of a stream at a time; a whole stream may be one step.

    Its weights are set once, by `load_state_dict`, and never trained.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.quantizer = _SplitQuantizer(config)
        self.pre_conv = CausalConv(config.codebook_dim, config.latent_dim, 3)
        self.pre_transformer = Transformer(config)
        self.upsample = nn.ModuleList(
            nn.ModuleList(
                [CausalTransposedConv(config.latent_dim, config.latent_dim, ratio, ratio), _ConvNext(config.latent_dim)]
            )
            for ratio in config.upsampling_ratios
        )
        channels = [config.decoder_dim // 2**halvings for halvings in range(len(config.upsample_rates) + 1)]
        self.decoder = nn.ModuleList(
            [
                CausalConv(config.latent_dim, channels[0], 7),
                *map(_Block, channels[:-1], channels[1:], config.upsample_rates),
                _SnakeBeta(channels[-1]),
                CausalConv(channels[-1], 1, 7),
            ]
        )
        self.requires_grad_(False)

    def forward(self, codes: Tensor, frames: Tensor, step: Step) -> Tensor:
        """`codes`, int64 [batch, num_quantizers, n] below `codebook_size`, → float32 [batch, n · frame_samples] in ±1.

        `frames`: int64 [batch], how many each stream has behind it.
        """
        latent = self.pre_conv(self.quantizer(codes), step)
        hidden = self.pre_transformer(latent.transpose(1, 2), frames, step).transpose(1, 2)
        for widen, refine in self.upsample:
            hidden = refine(widen(hidden, step), step)
        first, *blocks, snake, last = self.decoder
        hidden = first(hidden, step)
        for block in blocks:
            hidden = block(hidden, step)
        audio: Tensor = last(snake(hidden), step)
        return audio.squeeze(1).float().clamp(-1, 1)


class _Codebook(nn.Module):
    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.embedding_sum = nn.Parameter(torch.zeros(size, dim))
        self.cluster_usage = nn.Parameter(torch.ones(size))

    def embedding(self) -> Tensor:
        return self.embedding_sum / self.cluster_usage.clamp(min=LEAST_USAGE)[:, None]


class _ResidualQuantizer(nn.Module):
    """int64 [batch, codebooks, n] → float [batch, codebook_dim, n]: the sum of what the codes stand for."""

    def __init__(self, codebooks: int, config: CodecConfig) -> None:
        super().__init__()
        dim = config.codebook_dim // 2
        books = [nn.ModuleDict({"_codebook": _Codebook(config.codebook_size, dim)}) for _ in range(codebooks)]
        self.vq = nn.ModuleDict({"layers": nn.ModuleList(books)})
        self.output_proj = nn.Conv1d(dim, config.codebook_dim, 1, bias=False)
        self._size = config.codebook_size
        self.register_buffer("_entries", None, persistent=False)  # of all codebooks, one below the other
        self.register_buffer("_first", None, persistent=False)  # [codebooks, 1]: where each one's entries begin
        self.register_load_state_dict_post_hook(_ResidualQuantizer._derive)

    def _derive(self, _: object) -> None:
        books = [layer["_codebook"].embedding() for layer in self.vq["layers"]]
        self._entries = torch.cat(books)
        self._first = torch.arange(len(books), device=self._entries.device)[:, None] * self._size

    def forward(self, codes: Tensor) -> Tensor:
        summed = functional.embedding(codes + self._first, self._entries).sum(dim=1)
        projected: Tensor = self.output_proj(summed.transpose(1, 2))
        return projected


class _SplitQuantizer(nn.Module):
    """One semantic codebook, the rest acoustic."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.rvq_first = _ResidualQuantizer(1, config)
        self.rvq_rest = _ResidualQuantizer(config.num_quantizers - 1, config)

    def forward(self, codes: Tensor) -> Tensor:
        summed: Tensor = self.rvq_first(codes[:, :1]) + self.rvq_rest(codes[:, 1:])
        return summed


class _ConvNext(nn.Module):
    """Float [batch, channels, positions] → the same (Liu et al. 2022)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = CausalConv(channels, channels, 7, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.ones(channels))

    def forward(self, hidden: Tensor, step: Step) -> Tensor:
        normed = self.norm(self.dwconv(hidden, step).transpose(1, 2))
        refined = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(normed)))
        return hidden + refined.transpose(1, 2)


class _SnakeBeta(nn.Module):
    """x + sin²(e^alpha · x) / e^beta, by channel (Ziyin et al. 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.register_buffer("_frequency", None, persistent=False)
        self.register_buffer("_height", None, persistent=False)
        self.register_load_state_dict_post_hook(_SnakeBeta._derive)

    def _derive(self, _: object) -> None:
        self._frequency = self.alpha.exp()[:, None]
        self._height = 1 / (self.beta.exp()[:, None] + SNAKE_EPS)

    def forward(self, hidden: Tensor) -> Tensor:
        return torch.addcmul(hidden, self._height, (hidden * self._frequency).sin().square())


class _ResidualUnit(nn.Module):
    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.act1 = _SnakeBeta(channels)
        self.conv1 = CausalConv(channels, channels, 7, dilation=dilation)
        self.act2 = _SnakeBeta(channels)
        self.conv2 = CausalConv(channels, channels, 1)

    def forward(self, hidden: Tensor, step: Step) -> Tensor:
        convolved: Tensor = self.conv2(self.act2(self.conv1(self.act1(hidden), step)), step)
        return hidden + convolved


class _Block(nn.Module):
    """Float [batch, channels, positions] → [batch, outputs, positions · rate]."""

    def __init__(self, channels: int, outputs: int, rate: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            [
                _SnakeBeta(channels),
                CausalTransposedConv(channels, outputs, 2 * rate, rate),
                *(_ResidualUnit(outputs, dilation) for dilation in DILATIONS),
            ]
        )

    def forward(self, hidden: Tensor, step: Step) -> Tensor:
        snake, widen, *units = self.block
        hidden = widen(snake(hidden), step)
        for unit in units:
            hidden = unit(hidden, step)
        return hidden
