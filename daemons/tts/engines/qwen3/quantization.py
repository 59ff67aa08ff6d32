"""Weight-only quantization of a talker by torchao: the matrices of its layers kept in 8 bits, one scale a row.

They are unpacked whenever they are multiplied by, so what this saves is memory, not time. Embeddings are only looked
up, and heads make the logits: both stay as they are, and so do projections.
"""

from typing import Literal

import torch
from torch import nn

from daemons.errors import ConfigurationError
from daemons.tts.engines.qwen3.transformer import Layer

Quantization = Literal["none", "int8", "fp8"]

FP8_CAPABILITY = (8, 9)  # NVIDIA's compute capability that fp8 came with: Ada, then Hopper


def check_quantization(kind: Quantization, device: torch.device) -> None:
    """Raises ConfigurationError where `device` has no such numbers; a CPU would take seconds to spell fp8 out."""
    if kind != "fp8":
        return
    if device.type != "cuda":
        raise ConfigurationError(f"quantization fp8 wants a graphics card; on {device} there is int8")
    if (capability := torch.cuda.get_device_capability(device)) < FP8_CAPABILITY:
        wanted, has = (".".join(map(str, one)) for one in (FP8_CAPABILITY, capability))
        raise ConfigurationError(
            f"quantization fp8 wants compute capability {wanted}; "
            f"{torch.cuda.get_device_name(device)} has {has}, and could have int8"
        )


def quantize(network: nn.Module, kind: Quantization) -> None:
    """Round the matrices of all transformer layers in `network`, where they lie.

    Raises ConfigurationError where torchao is missing.
    """
    if kind == "none":
        return
    try:
        from torchao.quantization import (  # noqa: PLC0415 - takes seconds, and few want it
            Float8WeightOnlyConfig,
            Int8WeightOnlyConfig,
            quantize_,
        )
    except ImportError as error:
        raise ConfigurationError(f"quantization {kind} needs torchao ({error}): install callbox[torch]") from error
    config = {"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[kind](set_inductor_config=False)
    for layer in [module for module in network.modules() if isinstance(module, Layer)]:
        quantize_(layer, config)
