"""Where the decoder's weights come from: a published checkpoint, or a seed."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from daemons.tts.engines.qwen3 import checkpoint
from daemons.tts.engines.qwen3.codec.config import CodecConfig
from daemons.tts.engines.qwen3.codec.network import Decoder

PREFIX = "decoder."
ENCODER = ("encoder.", "decoder.quantizer.rvq_first.input_proj.", "decoder.quantizer.rvq_rest.input_proj.")
"""What a file holds for turning audio into codes, some of it among the decoder's weights."""


def load(folder: Path) -> Decoder:
    """From `folder`, a checkpoint's `speech_tokenizer`: float32, on the CPU.

    Raises ConfigurationError when a file is missing or broken, or its weights are not those of this decoder.
    """
    decoder = _unfilled(CodecConfig.read(folder / "config.json"))
    checkpoint.load(decoder, folder, prefix=PREFIX, without=ENCODER)
    return decoder


def build(config: CodecConfig, weights: Mapping[str, Tensor]) -> Decoder:
    """Of `weights` under their published names. Raises ConfigurationError unless they are just this decoder's."""
    decoder = _unfilled(config)
    checkpoint.fill(decoder, weights, PREFIX)
    return decoder


def random_weights(config: CodecConfig, seed: int) -> dict[str, Tensor]:
    """Under their published names, the same for the same seed; what they say is noise of moderate level.

    None has the value that upstream begins with where that hides errors: of codebooks that are all 0, ConvNeXt scaled
    by 1e-6 and transformer layers scaled by 0.01, next to nothing is heard.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        PREFIX + name: _random(name, parameter.shape, generator)
        for name, parameter in sorted(_unfilled(config).named_parameters())
    }


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    role = name.rpartition(".")[2]
    if role == "cluster_usage":
        return torch.rand(shape, generator=generator) + 0.5
    if role in {"gamma", "scale"}:
        return torch.rand(shape, generator=generator) * 0.5 + 0.25
    normal = torch.randn(shape, generator=generator)
    if role == "embedding_sum":
        return normal * 0.3
    if role in {"bias", "alpha", "beta"}:
        return normal * 0.1
    if len(shape) == 1:  # of a norm
        return 1 + normal * 0.1
    level = 0.3 if ".conv2." in name or shape[0] == 1 else 1.0  # of what residual units add, and of the audio
    return normal * level / shape[1:].numel() ** 0.5


def _unfilled(config: CodecConfig) -> Decoder:
    with torch.device("meta"):  # no time is spent on initial values
        decoder = Decoder(config)
    decoder.to_empty(device="cpu")
    return decoder
