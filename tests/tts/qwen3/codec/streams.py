"""A decoder small enough to be run thousands of times, and the published one with the same weights."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from daemons.tts.engines.qwen3.codec.config import CodecConfig
from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder
from daemons.tts.engines.qwen3.codec.weights import build, random_weights
from tests.tts.qwen3.oracle import upstream

TINY = CodecConfig(  # windows and strides as published
    codebook_size=64,
    codebook_dim=32,
    latent_dim=32,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    head_dim=16,
    decoder_dim=64,
)
EXACT = 1e-5


def published(config: CodecConfig, weights: dict[str, Tensor]) -> Any:
    """Upstream's decoder. Of its own weights it keeps those of the encoder's projections, which it does not use."""
    shape = upstream("core.tokenizer_12hz.configuration_qwen3_tts_tokenizer_v2").Qwen3TTSTokenizerV2DecoderConfig(
        **asdict(config), num_key_value_heads=config.num_attention_heads
    )
    decoder = upstream("core.tokenizer_12hz.modeling_qwen3_tts_tokenizer_v2").Qwen3TTSTokenizerV2Decoder(shape).eval()
    fit = decoder.load_state_dict({name.removeprefix("decoder."): w for name, w in weights.items()}, strict=False)
    assert fit.missing_keys == [f"quantizer.rvq_{which}.input_proj.weight" for which in ("first", "rest")]
    assert not fit.unexpected_keys
    return decoder


def decoder_of_chance(seed: int = 7) -> IncrementalDecoder:
    return IncrementalDecoder(build(TINY, random_weights(TINY, seed)))


def random_codes(batch: int, frames: int, seed: int) -> Tensor:
    """int64 [batch, 16, frames]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(TINY.codebook_size, (batch, TINY.num_quantizers, frames), generator=generator)


def assert_exact(audio: Tensor, expected: Tensor) -> None:
    assert audio.shape == expected.shape
    assert audio.dtype == torch.float32
    worst = float((audio - expected).abs().max())
    assert worst <= EXACT, f"off by {worst:.1e}"
