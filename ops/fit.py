"""Which engine a model's files are for."""

import json
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from daemons.errors import ConfigurationError, without_torch

GGUF_MAGIC = b"GGUF"
MOONSHINE = ("encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin")
SILERO = "silero_vad.onnx"
SMART_TURN = "smart-turn-v3.2-cpu.onnx"
FAVOURITE = "Q4_K_M"  # of a repository with one model in many sizes: what llama.cpp itself takes by default
SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})\.gguf")
TRANSFORMERS = re.compile(r"[^/]+\.(json|safetensors|txt|model|jinja|tiktoken)")  # weights, tokenizer, templates
SPEECH_TOKENIZER = "speech_tokenizer"  # the folder of Qwen3-TTS's codec
QWEN3_TTS = re.compile(rf"({SPEECH_TOKENIZER}/)?{TRANSFORMERS.pattern}")
SPEAKS = "custom_voice"  # Qwen3-TTS that brings its voices; others want a recording or a description of one
CHATS = re.compile(r"For(CausalLM|ConditionalGeneration)$")


class Fit(NamedTuple):
    """A role, the engines that run these files (the usual one first), and the files of all that they want."""

    role: str
    engines: tuple[str, ...]
    files: tuple[str, ...]


def fit_of(what: str, names: Iterable[str]) -> Fit:
    """By the names of its files, which may lie in folders. Raises ConfigurationError, in words, when nothing fits."""
    there = sorted(names)
    ggufs = [name for name in there if name.endswith(".gguf")]
    if set(MOONSHINE) <= set(there):
        return Fit("stt", ("moonshine",), MOONSHINE)
    if SILERO in there:
        return Fit("vad", (), (SILERO,))
    if SMART_TURN in there:
        return Fit("turn", (), (SMART_TURN,))
    if voice := [name for name in there if name.endswith(".onnx") and f"{name}.json" in there]:
        if len(voice) > 1:
            raise ConfigurationError(f"{what} holds {len(voice)} voices; a folder with one is wanted")
        return Fit("tts", ("piper",), (voice[0], f"{voice[0]}.json"))
    if ggufs:
        return Fit("llm", ("llamacpp", "transformers"), _one_gguf(what, ggufs))
    if {"config.json", f"{SPEECH_TOKENIZER}/config.json"} <= set(there):
        return Fit("tts", ("qwen3",), tuple(name for name in there if QWEN3_TTS.fullmatch(name)))
    if "config.json" in there and any(name.endswith(".safetensors") for name in there):
        return Fit("llm", ("transformers",), tuple(name for name in there if TRANSFORMERS.fullmatch(name)))
    raise ConfigurationError(
        f"{what} holds nothing that an engine here runs: a .gguf (chat, llamacpp), config.json and .safetensors (chat, "
        f"transformers), a Qwen3-TTS (its voice, qwen3), a voice of piper, {', '.join(MOONSHINE)} (speech, moonshine), "
        f"{SILERO} or {SMART_TURN}"
    )


def with_its_shards(file: str, names: Iterable[str]) -> tuple[str, ...]:
    """A large GGUF may lie in several files, whose names count."""
    whole = SHARD.fullmatch(file)
    if not whole:
        return (file,)
    return tuple(
        name for name in sorted(names) if (shard := SHARD.fullmatch(name)) and shard.groups() == whole.groups()
    )


def _one_gguf(what: str, ggufs: list[str]) -> tuple[str, ...]:
    first = [name for name in ggufs if not SHARD.fullmatch(name) or "-00001-of-" in name]
    chosen = first if len(first) == 1 else [name for name in first if FAVOURITE.lower() in name.lower()]
    if len(chosen) != 1:
        raise ConfigurationError(f"{what} holds {len(first)} models; name one of them: {', '.join(first)}")
    return with_its_shards(chosen[0], ggufs)


def check_content(place: Path, fit: Fit) -> None:
    """That the files, which are here now, are what their names promise. Raises ConfigurationError."""
    folder = place if place.is_dir() else place.parent
    for name in fit.files:
        if name.endswith(".gguf"):
            with (folder / name).open("rb") as file:
                if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                    raise ConfigurationError(f"{folder / name} is no GGUF file, for all its name")
    if fit.engines == ("qwen3",):
        kind = _config(folder / "config.json").get("tts_model_type")
        if kind != SPEAKS:
            raise ConfigurationError(f"{place} is a Qwen3-TTS of the kind {kind}; the engine qwen3 wants {SPEAKS}")
    elif "config.json" in fit.files:
        config = _config(folder / "config.json")
        made_for = re.findall(r"\w+", str(config.get("architectures") or ""))
        translates = config.get("is_encoder_decoder")
        if translates or not any(CHATS.search(name) for name in made_for):
            said = ", ".join(made_for) or "nothing that it names"
            raise ConfigurationError(f"{place} is made for {said}; the LLM worker wants a model that writes text")


def check_engine(engine: str) -> None:
    """That what the engine stands on is installed. Raises ConfigurationError."""
    if engine in ("transformers", "qwen3") and not (find_spec("torch") and find_spec("transformers")):
        raise without_torch(engine)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ConfigurationError(f"{path}: an object is wanted")
        return config
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error
