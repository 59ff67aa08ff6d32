"""What a checkpoint's `config.json` says of its talker: shapes, ids, voices (`configuration_qwen3_tts.py` of qwen-tts).

Only what this package computes is accepted; anything else is refused before weights are read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemons.errors import ConfigurationError

CODE_SUPPRESSED_TAIL = 1024  # ids at the end of the talker's vocabulary that are no codes; its end token is among them


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    hidden_size: int
    inner_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    rope_theta: float
    norm_eps: float


@dataclass(frozen=True, slots=True)
class PredictorConfig:
    """The code predictor's: the codes of a frame beyond its first."""

    transformer: TransformerConfig
    codes: int


@dataclass(frozen=True, slots=True)
class CodecIds:
    """What the talker's vocabulary holds beside codes."""

    pad: int
    bos: int
    eos: int
    think: int
    no_think: int
    think_bos: int
    think_eos: int


@dataclass(frozen=True, slots=True)
class TextIds:
    im_start: int
    im_end: int
    tts_pad: int
    tts_bos: int
    tts_eos: int


@dataclass(frozen=True, slots=True)
class TalkerConfig:
    transformer: TransformerConfig
    predictor: PredictorConfig
    codes: int  # of the first codebook, special ids included
    codebooks: int
    text_tokens: int
    text_hidden_size: int
    codec_ids: CodecIds
    text_ids: TextIds
    languages: Mapping[str, int]
    speakers: Mapping[str, int]
    dialects: Mapping[str, str]  # speaker → the language that it speaks instead of Chinese
    hears_instructions: bool


def read_config(folder: Path) -> TalkerConfig:
    """The talker's configuration in a published checkpoint. Raises ConfigurationError for what is no such thing."""
    path = folder / "config.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path} holds no object")
    return talker_config(document)


def talker_config(document: Mapping[str, Any]) -> TalkerConfig:
    """From what `config.json` holds. Raises ConfigurationError, with the name of what is missing or not supported."""
    root = _Section("config.json", document)
    root.demand("tokenizer_type", "qwen3_tts_tokenizer_12hz")
    root.demand("tts_model_type", "custom_voice")
    talker = root.section("talker_config")
    predictor = talker.section("code_predictor_config")
    codebooks = talker.positive("num_code_groups")
    predictor.demand("num_code_groups", codebooks)
    transformer = _transformer(talker)
    _check_positions(talker, transformer.head_size)
    if predictor.get("rope_scaling") is not None:
        raise predictor.refusal("rope_scaling")
    speakers = talker.ids("spk_id")
    languages = talker.ids("codec_language_id")
    config = TalkerConfig(
        transformer=transformer,
        predictor=PredictorConfig(_transformer(predictor), predictor.positive("vocab_size")),
        codes=talker.positive("vocab_size"),
        codebooks=codebooks,
        text_tokens=talker.positive("text_vocab_size"),
        text_hidden_size=talker.positive("text_hidden_size"),
        codec_ids=CodecIds(
            pad=talker.id("codec_pad_id"),
            bos=talker.id("codec_bos_id"),
            eos=talker.id("codec_eos_token_id"),
            think=talker.id("codec_think_id"),
            no_think=talker.id("codec_nothink_id"),
            think_bos=talker.id("codec_think_bos_id"),
            think_eos=talker.id("codec_think_eos_id"),
        ),
        text_ids=TextIds(
            im_start=root.id("im_start_token_id"),
            im_end=root.id("im_end_token_id"),
            tts_pad=root.id("tts_pad_token_id"),
            tts_bos=root.id("tts_bos_token_id"),
            tts_eos=root.id("tts_eos_token_id"),
        ),
        languages=languages,
        speakers=speakers,
        dialects=_dialects(talker, speakers, languages),
        hears_instructions=root.get("tts_model_size") != "0b6",
    )
    _check_ids(config)
    return config


def published(size: str) -> TalkerConfig:
    """The shapes of the published CustomVoice checkpoint "0.6b" or "1.7b", to measure what needs no weights.

    Its voices are the published ones. Raises ConfigurationError for another size.
    """
    widths = {"0.6b": (1024, 3072), "1.7b": (2048, 6144)}
    if size not in widths:
        raise ConfigurationError(f"Qwen3-TTS is published as {' and '.join(widths)}, not as {size}")
    hidden_size, inner_size = widths[size]
    return TalkerConfig(
        transformer=TransformerConfig(hidden_size, inner_size, 28, 16, 8, 128, 1e6, 1e-6),
        predictor=PredictorConfig(TransformerConfig(1024, 3072, 5, 16, 8, 128, 1e6, 1e-6), 2048),
        codes=3072,
        codebooks=16,
        text_tokens=151936,
        text_hidden_size=2048,
        codec_ids=CodecIds(2148, 2149, 2150, think=2154, no_think=2155, think_bos=2156, think_eos=2157),
        text_ids=TextIds(151644, 151645, tts_pad=151671, tts_bos=151672, tts_eos=151673),
        languages={
            "chinese": 2055,
            "english": 2050,
            "german": 2053,
            "italian": 2070,
            "portuguese": 2071,
            "spanish": 2054,
            "japanese": 2058,
            "korean": 2064,
            "french": 2061,
            "russian": 2069,
            "beijing_dialect": 2074,
            "sichuan_dialect": 2062,
        },
        speakers={
            "serena": 3066,
            "vivian": 3065,
            "uncle_fu": 3010,
            "ryan": 3061,
            "aiden": 2861,
            "ono_anna": 2873,
            "sohee": 2864,
            "eric": 2875,
            "dylan": 2878,
        },
        dialects={"eric": "sichuan_dialect", "dylan": "beijing_dialect"},
        hears_instructions=size != "0.6b",
    )


@dataclass(frozen=True, slots=True)
class _Section:
    """An object within `config.json`, and where it stands there."""

    name: str
    values: Mapping[str, Any]

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def refusal(self, key: str) -> ConfigurationError:
        return ConfigurationError(f"{self.name} has {key} = {self.get(key)!r}, which this engine does not compute")

    def demand(self, key: str, wanted: object) -> None:
        if self.get(key) != wanted:
            raise ConfigurationError(f"{self.name} has {key} = {self.get(key)!r}; this engine needs {wanted!r}")

    def section(self, key: str) -> "_Section":
        value = self.get(key)
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{self.name} has no object {key}")
        return _Section(f"{self.name}: {key}", value)

    def positive(self, key: str) -> int:
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigurationError(f"{self.name} has {key} = {value!r}; a positive whole number is wanted")
        return value

    def id(self, key: str) -> int:
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ConfigurationError(f"{self.name} has {key} = {value!r}; an id is wanted")
        return value

    def real(self, key: str) -> float:
        value = self.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise ConfigurationError(f"{self.name} has {key} = {value!r}; a positive number is wanted")
        return float(value)

    def ids(self, key: str) -> dict[str, int]:
        table = self.section(key)
        return {name.lower(): table.id(name) for name in table.values}


def _transformer(section: _Section) -> TransformerConfig:
    section.demand("hidden_act", "silu")
    if section.get("attention_bias"):
        raise section.refusal("attention_bias")
    if section.get("use_sliding_window"):
        raise section.refusal("use_sliding_window")
    if set(section.get("layer_types") or ()) - {"full_attention"}:
        raise section.refusal("layer_types")
    heads = section.positive("num_attention_heads")
    key_value_heads = section.positive("num_key_value_heads")
    if heads % key_value_heads:
        raise ConfigurationError(f"{section.name}: {heads} heads cannot share {key_value_heads} key-value heads")
    head_size = section.positive("head_dim")
    if head_size % 2:
        raise section.refusal("head_dim")
    return TransformerConfig(
        hidden_size=section.positive("hidden_size"),
        inner_size=section.positive("intermediate_size"),
        layers=section.positive("num_hidden_layers"),
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=head_size,
        rope_theta=section.real("rope_theta"),
        norm_eps=section.real("rms_norm_eps"),
    )


def _check_positions(talker: _Section, head_size: int) -> None:
    scaling = talker.section("rope_scaling")
    scaling.demand("rope_type", "default")
    sections = scaling.get("mrope_section")
    if not isinstance(sections, list) or len(sections) != 3 or sum(sections) != head_size // 2:
        raise scaling.refusal("mrope_section")


def _dialects(talker: _Section, speakers: Mapping[str, int], languages: Mapping[str, int]) -> dict[str, str]:
    table = talker.section("spk_is_dialect").values
    dialects = {speaker.lower(): dialect for speaker, dialect in table.items() if dialect is not False}
    for speaker, dialect in dialects.items():
        if speaker not in speakers or dialect not in languages:
            raise ConfigurationError(f"{talker.name}: {speaker} speaks {dialect!r}, which has no id")
    return dialects


def _check_ids(config: TalkerConfig) -> None:
    codec = (*_fields(config.codec_ids), *config.languages.values(), *config.speakers.values())
    text = _fields(config.text_ids)
    for highest, room, name in (
        (max(codec), config.codes, "vocab_size"),
        (max(text), config.text_tokens, "text_vocab_size"),
    ):
        if highest >= room:
            raise ConfigurationError(f"config.json names id {highest}, beyond {name} = {room}")
    codes = config.codes - CODE_SUPPRESSED_TAIL
    if codes != config.predictor.codes or config.codec_ids.eos < codes:
        raise ConfigurationError(
            f"config.json has vocab_size = {config.codes} and the end token {config.codec_ids.eos}: without its last "
            f"{CODE_SUPPRESSED_TAIL} ids, of which the end token is one, {config.predictor.codes} codes are to be left"
        )


def _fields(ids: CodecIds | TextIds) -> tuple[int, ...]:
    return tuple(getattr(ids, name) for name in ids.__slots__)
