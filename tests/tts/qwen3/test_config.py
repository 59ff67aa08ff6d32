"""What a checkpoint says of itself, and what is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from daemons.errors import BadRequest, ConfigurationError
from daemons.tts.engines.qwen3.config import published, read_config, talker_config

pytest.importorskip("torch", reason="torch is not installed")

from daemons.tts.engines.qwen3.prompt import language_id, prompt
from tests.tts.qwen3.tiny import CONFIG, DOCUMENT, ROLE


def changed(path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    *sections, key = path.split("/")
    place = document
    for section in sections:
        place = place[section]
    place[key] = value
    return document


def test_a_checkpoints_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(DOCUMENT))
    assert read_config(tmp_path) == CONFIG
    assert CONFIG.transformer.hidden_size == 32
    assert CONFIG.predictor.transformer.hidden_size == 24
    assert CONFIG.dialects == {"dylan": "beijing_dialect"}


@pytest.mark.parametrize("content", ["", "[1]", "{}"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigurationError):
        read_config(tmp_path)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("tts_model_type", "base", "custom_voice"),
        ("tokenizer_type", "qwen3_tts_tokenizer_25hz", "12hz"),
        ("tts_eos_token_id", 300, "beyond text_vocab_size"),
        ("tts_bos_token_id", None, "tts_bos_token_id"),
        ("talker_config", None, "talker_config"),
        ("talker_config/hidden_act", "gelu", "silu"),
        ("talker_config/hidden_size", 0, "hidden_size"),
        ("talker_config/hidden_size", True, "hidden_size"),
        ("talker_config/attention_bias", True, "attention_bias"),
        ("talker_config/use_sliding_window", True, "use_sliding_window"),
        ("talker_config/num_key_value_heads", 3, "cannot share"),
        ("talker_config/rope_theta", "much", "rope_theta"),
        ("talker_config/rope_scaling", None, "rope_scaling"),
        ("talker_config/rope_scaling/rope_type", "yarn", "rope_type"),
        ("talker_config/rope_scaling/mrope_section", [4, 2, 3], "mrope_section"),
        ("talker_config/spk_id/ryan", 5000, "beyond vocab_size"),
        ("talker_config/spk_id/ryan", "061", "ryan"),
        ("talker_config/spk_is_dialect/ryan", "klingon", "klingon"),
        ("talker_config/vocab_size", 1024, "48 codes are to be left"),
        ("talker_config/codec_eos_token_id", 3, "end token"),
        ("talker_config/code_predictor_config/num_code_groups", 8, "num_code_groups"),
        ("talker_config/code_predictor_config/layer_types", ["sliding_attention"] * 2, "layer_types"),
        ("talker_config/code_predictor_config/rope_scaling", {"rope_type": "linear"}, "rope_scaling"),
        ("talker_config/code_predictor_config/vocab_size", 40, "40 codes are to be left"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(path: str, value: object, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        talker_config(changed(path, value))


def test_the_published_shapes() -> None:
    small, large = published("0.6b"), published("1.7b")
    assert (small.transformer.hidden_size, large.transformer.hidden_size) == (1024, 2048)
    assert small.predictor == large.predictor
    assert (small.codes, small.codebooks, small.text_tokens) == (3072, 16, 151936)
    assert (small.codec_ids.pad, small.codec_ids.bos, small.codec_ids.eos) == (2148, 2149, 2150)
    assert (small.hears_instructions, large.hears_instructions) == (False, True)
    with pytest.raises(ConfigurationError, match=r"0\.6b and 1\.7b"):
        published("8b")


def test_voices_and_languages() -> None:
    assert language_id(CONFIG, "Ryan", "Auto") is None
    assert language_id(CONFIG, "ryan", "ENGLISH") == 250
    assert language_id(CONFIG, "Dylan", "auto") == language_id(CONFIG, "dylan", "Chinese") == 274
    assert language_id(CONFIG, "dylan", "english") == 250
    with pytest.raises(BadRequest, match="no voice Vivian; there are dylan, ryan"):
        language_id(CONFIG, "Vivian", "auto")
    for language in ("Klingon", "beijing_dialect"):
        with pytest.raises(BadRequest, match=f"no language {language}; there are auto, chinese, english"):
            language_id(CONFIG, "ryan", language)


def test_the_small_one_takes_no_instruction() -> None:
    small = talker_config(changed("tts_model_size", "0b6"))
    with pytest.raises(BadRequest, match="no instruction"):
        prompt(small, ROLE, 9, speaker="ryan", instruction=[1, 2])
