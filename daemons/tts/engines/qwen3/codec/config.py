"""What shapes the codec's decoder."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from daemons.errors import ConfigurationError

RATE_HZ = 24_000


@dataclass(frozen=True, slots=True)
class CodecConfig:
    """`decoder_config` of a checkpoint's `speech_tokenizer/config.json`, under its own names.

    The defaults are those of the published checkpoints, which are not those of upstream's
    `configuration_qwen3_tts_tokenizer_v2.py`: its transformer would be twice as wide.
    """

    num_quantizers: int = 16
    codebook_size: int = 2048
    codebook_dim: int = 512
    """Of what leaves the quantizer; each codebook has half of it."""
    latent_dim: int = 1024
    hidden_size: int = 512
    intermediate_size: int = 1024
    num_hidden_layers: int = 8
    num_attention_heads: int = 16
    head_dim: int = 64
    sliding_window: int = 72
    """How many frames a frame attends to, itself among them."""
    rope_theta: float = 10_000
    rms_norm_eps: float = 1e-5
    upsampling_ratios: tuple[int, ...] = (2, 2)
    upsample_rates: tuple[int, ...] = (8, 5, 4, 3)
    decoder_dim: int = 1536
    """Channels that enter the first of the `upsample_rates`; each of these halves them."""

    @property
    def frame_samples(self) -> int:
        return math.prod(self.upsampling_ratios) * math.prod(self.upsample_rates)

    @classmethod
    def read(cls, file: Path) -> "CodecConfig":
        """Raises ConfigurationError when `file` is missing, is no JSON, or describes another decoder than this one.

        Whatever upstream's decoder does not look at is ignored.
        """
        try:
            codec = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{file} cannot be read: {error}") from error
        if not isinstance(codec, dict) or not isinstance(codec.get("decoder_config"), dict):
            raise ConfigurationError(f"{file} has no decoder_config")
        try:
            config = cls._parsed(codec["decoder_config"])
            _expect(codec, "model_type", "qwen3_tts_tokenizer_12hz")
            _expect(codec, "output_sample_rate", RATE_HZ)
            _expect(codec, "decode_upsample_rate", config.frame_samples)
        except ConfigurationError as error:
            raise ConfigurationError(f"{file}: {error}") from error
        return config

    @classmethod
    def _parsed(cls, given: Mapping[str, Any]) -> "CodecConfig":
        for field in fields(cls):
            if field.name not in given:
                raise ConfigurationError(f"{field.name} is missing")
        config = cls(**{field.name: _PARSERS[field.type](field.name, given[field.name]) for field in fields(cls)})
        for name, value in _FIXED.items():
            _expect(given, name, value)
        _expect(given, "num_key_value_heads", config.num_attention_heads)
        if config.num_quantizers < 2:
            raise ConfigurationError("num_quantizers is below 2; one is semantic, the rest are acoustic")
        if config.sliding_window < 2:
            raise ConfigurationError("sliding_window is below 2; a frame would attend to nothing but itself")
        for name, divisor in (("codebook_dim", 2), ("head_dim", 2), ("decoder_dim", 2 ** len(config.upsample_rates))):
            if given[name] % divisor:
                raise ConfigurationError(f"{name} is {given[name]}, which {divisor} does not divide")
        return config


_FIXED: Mapping[str, Any] = {"attention_bias": False, "hidden_act": "silu", "rope_scaling": None}
"""What upstream's decoder would heed and this one has in one form only."""


def _expect(given: Mapping[str, Any], name: str, wanted: object) -> None:
    if (value := given.get(name, wanted)) != wanted:
        raise ConfigurationError(f"{name} is {value!r}; this decoder knows {wanted!r} alone")


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{name} is {value!r}, which is no whole number above 0")
    return value


def _real(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise ConfigurationError(f"{name} is {value!r}, which is no number above 0")
    return float(value)


def _factors(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigurationError(f"{name} is {value!r}, which is no list of factors")
    return tuple(_whole(name, factor) for factor in value)


_PARSERS: Mapping[Any, Callable[[str, object], Any]] = {int: _whole, float: _real, tuple[int, ...]: _factors}
