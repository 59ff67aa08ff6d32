"""Where a talker's weights come from: a published checkpoint, or chance."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from daemons.tts.engines.qwen3 import checkpoint
from daemons.tts.engines.qwen3.config import TalkerConfig
from daemons.tts.engines.qwen3.talker import Talker

VOICE_CLONING = ("speaker_encoder.",)  # CustomVoice does without
CHANCE = 1_000_003  # random values are made once and laid out again and again; a prime, so that rows do not repeat


def load_talker(folder: Path, config: TalkerConfig, *, dtype: torch.dtype = torch.float32) -> Talker:
    """The published one in `folder`, on the CPU. Raises ConfigurationError when it is no such thing."""
    talker = _unfilled(config, dtype)
    checkpoint.load(talker, folder, prefix="talker.", without=VOICE_CLONING)
    return talker


def random_talker(config: TalkerConfig, seed: int, *, dtype: torch.dtype = torch.float32) -> Talker:
    """Of weights that keep what passes through them at a scale near 1, the same for the same seed; on the CPU."""
    talker = _unfilled(config, dtype)
    fill_randomly(talker, seed)
    return talker


def fill_randomly(network: nn.Module, seed: int) -> None:
    """Matrices of deviation 1/√inputs, embeddings of 1, norms near 1, biases near 0."""
    chance = torch.randn(CHANCE, generator=torch.Generator().manual_seed(seed))
    start = 0
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            values = parameter.data.view(-1)
            scale = 1.0 if isinstance(module, nn.Embedding) else 1 / math.sqrt(parameter[0].numel())
            near = chance.to(values.dtype) * (scale if parameter.ndim > 1 else 0.1)
            if parameter.ndim == 1 and name == "weight":
                near = near + 1
            for piece in values.split(CHANCE):
                _lay(piece, near, start)
                start = (start + len(piece)) % CHANCE


def _lay(values: Tensor, chance: Tensor, start: int) -> None:
    """Fill `values` with `chance`, from `start` on and round."""
    until_end = min(len(values), len(chance) - start)
    values[:until_end] = chance[start : start + until_end]
    values[until_end:] = chance[: len(values) - until_end]


def _unfilled(config: TalkerConfig, dtype: torch.dtype) -> Talker:
    with torch.device("meta"):  # no time is spent on initial values
        talker = Talker(config)
    talker.to(dtype).to_empty(device="cpu").requires_grad_(False).eval()
    return talker
