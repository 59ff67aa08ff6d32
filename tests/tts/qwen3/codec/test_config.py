import json
from pathlib import Path
from typing import Any

import pytest

from daemons.errors import ConfigurationError
from daemons.tts.engines.qwen3.codec.config import CodecConfig

PUBLISHED: dict[str, Any] = {  # speech_tokenizer/config.json of Qwen3-TTS-12Hz, less what belongs to the encoder
    "architectures": ["Qwen3TTSTokenizerV2Model"],
    "model_type": "qwen3_tts_tokenizer_12hz",
    "encoder_valid_num_quantizers": 16,
    "input_sample_rate": 24000,
    "output_sample_rate": 24000,
    "decode_upsample_rate": 1920,
    "encode_downsample_rate": 1920,
    "decoder_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "latent_dim": 1024,
        "codebook_dim": 512,
        "codebook_size": 2048,
        "decoder_dim": 1536,
        "hidden_act": "silu",
        "hidden_size": 512,
        "intermediate_size": 1024,
        "layer_scale_initial_scale": 0.01,
        "max_position_embeddings": 8000,
        "head_dim": 64,
        "num_attention_heads": 16,
        "num_hidden_layers": 8,
        "num_key_value_heads": 16,
        "num_quantizers": 16,
        "num_semantic_quantizers": 1,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000,
        "semantic_codebook_size": 4096,
        "sliding_window": 72,
        "upsample_rates": [8, 5, 4, 3],
        "upsampling_ratios": [2, 2],
        "vector_quantization_hidden_dimension": 512,
    },
}


def read(folder: Path, codec: object) -> CodecConfig:
    file = folder / "config.json"
    file.write_text(json.dumps(codec))
    return CodecConfig.read(file)


def test_the_published_file_says_what_is_assumed_without_one(tmp_path: Path) -> None:
    assert read(tmp_path, PUBLISHED) == CodecConfig()
    assert CodecConfig().frame_samples == 1920


def test_what_a_file_says_counts(tmp_path: Path) -> None:
    changed = {"hidden_size": 256, "sliding_window": 50, "rope_theta": 5000.5, "upsample_rates": [8, 5, 6, 2]}
    config = read(tmp_path, {**PUBLISHED, "decoder_config": PUBLISHED["decoder_config"] | changed})
    assert (config.hidden_size, config.sliding_window, config.rope_theta) == (256, 50, 5000.5)
    assert config.upsample_rates == (8, 5, 6, 2)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("hidden_act", "gelu", "hidden_act is 'gelu'; this decoder knows 'silu' alone"),
        ("attention_bias", True, "attention_bias is True"),
        ("rope_scaling", {"rope_type": "yarn"}, "rope_scaling is"),
        ("num_key_value_heads", 4, "num_key_value_heads is 4; this decoder knows 16 alone"),
        ("head_dim", 0, "head_dim is 0, which is no whole number above 0"),
        ("head_dim", 63, "head_dim is 63, which 2 does not divide"),
        ("decoder_dim", 1000, "decoder_dim is 1000, which 16 does not divide"),
        ("num_hidden_layers", True, "num_hidden_layers is True, which is no whole number"),
        ("codebook_size", "2048", "codebook_size is '2048', which is no whole number"),
        ("num_quantizers", 1, "num_quantizers is below 2"),
        ("sliding_window", 1, "sliding_window is below 2"),
        ("rms_norm_eps", "small", "rms_norm_eps is 'small', which is no number above 0"),
        ("upsample_rates", 8, "upsample_rates is 8, which is no list of factors"),
        ("upsample_rates", [8, 5, 4], "decode_upsample_rate is 1920; this decoder knows 640 alone"),
    ],
)
def test_another_architecture_is_refused_in_words(tmp_path: Path, name: str, value: object, words: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read(tmp_path, PUBLISHED | {"decoder_config": PUBLISHED["decoder_config"] | {name: value}})
    assert words in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


@pytest.mark.parametrize(
    ("codec", "words"),
    [
        ([], "has no decoder_config"),
        ({}, "has no decoder_config"),
        (PUBLISHED | {"decoder_config": {}}, "is missing"),
        (PUBLISHED | {"model_type": "qwen3_tts_tokenizer_25hz"}, "model_type is 'qwen3_tts_tokenizer_25hz'"),
        (PUBLISHED | {"output_sample_rate": 48000}, "output_sample_rate is 48000"),
    ],
)
def test_another_codec_is_refused_in_words(tmp_path: Path, codec: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        read(tmp_path, codec)


def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        CodecConfig.read(file)
    file.write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        CodecConfig.read(file)
