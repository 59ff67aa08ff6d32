"""A talker small enough to be compared with the published classes in milliseconds."""

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

from daemons.tts.engines.qwen3.cache import Cache, DynamicCache
from daemons.tts.engines.qwen3.config import TalkerConfig, talker_config
from daemons.tts.engines.qwen3.prompt import Prompt, prompt
from daemons.tts.engines.qwen3.sampling import CodeSampler
from daemons.tts.engines.qwen3.talker import Talker
from daemons.tts.engines.qwen3.weights import random_talker
from tests.tts.qwen3.oracle import upstream

ROLE = (290, 292, 5)  # im_start, assistant, line break

DOCUMENT: dict[str, Any] = {
    "tokenizer_type": "qwen3_tts_tokenizer_12hz",
    "tts_model_size": "1b7",
    "tts_model_type": "custom_voice",
    "im_start_token_id": 290,
    "im_end_token_id": 291,
    "tts_pad_token_id": 295,
    "tts_bos_token_id": 296,
    "tts_eos_token_id": 297,
    "talker_config": {
        "attention_bias": False,
        "head_dim": 16,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 48,
        "max_position_embeddings": 512,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "num_code_groups": 16,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default", "type": "default"},
        "rope_theta": 1000000,
        "text_hidden_size": 40,
        "text_vocab_size": 300,
        "vocab_size": 1024 + 48,
        "codec_pad_id": 148,
        "codec_bos_id": 149,
        "codec_eos_token_id": 150,
        "codec_think_id": 154,
        "codec_nothink_id": 155,
        "codec_think_bos_id": 156,
        "codec_think_eos_id": 157,
        "codec_language_id": {"chinese": 255, "english": 250, "beijing_dialect": 274},
        "spk_id": {"ryan": 61, "dylan": 78},
        "spk_is_dialect": {"ryan": False, "dylan": "beijing_dialect"},
        "code_predictor_config": {
            "attention_bias": False,
            "head_dim": 16,
            "hidden_act": "silu",
            "hidden_size": 24,
            "intermediate_size": 40,
            "max_position_embeddings": 512,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "num_key_value_heads": 1,
            "num_code_groups": 16,
            "rms_norm_eps": 1e-6,
            "rope_scaling": None,
            "rope_theta": 1000000,
            "vocab_size": 48,
        },
    },
}


def document(*, predictor_hidden_size: int = 24) -> dict[str, Any]:
    """The tiny checkpoint's `config.json`. As wide as the talker (32), its predictor needs no projection."""
    changed = copy.deepcopy(DOCUMENT)
    changed["talker_config"]["code_predictor_config"]["hidden_size"] = predictor_hidden_size
    return changed


CONFIG: TalkerConfig = talker_config(DOCUMENT)


def tiny_talker(seed: int = 0, config: TalkerConfig = CONFIG) -> Talker:
    talker = random_talker(config, seed)
    talker.text_projection.linear_fc2.weight *= 8  # one token of text is to be heard beside 16 codes
    return talker


def opening(talker: Talker) -> torch.Tensor:
    """What the talker reads before a text's first token: [length, hidden_size]."""
    with torch.inference_mode():
        return prompt(CONFIG, ROLE, CONFIG.text_ids.tts_pad, speaker="ryan").embedded(talker)[0, :-1].clone()


def published(talker: Talker, described: dict[str, Any] = DOCUMENT) -> Any:
    """`Qwen3TTSForConditionalGeneration` with the same weights; a key that only one of them has is an error."""
    configuration = upstream("core.models.configuration_qwen3_tts").Qwen3TTSConfig(**copy.deepcopy(described))
    model = upstream("core.models.modeling_qwen3_tts").Qwen3TTSForConditionalGeneration(configuration)
    model.talker.load_state_dict(talker.state_dict(), strict=True)
    return model.eval()


def speak(
    talker: Talker,
    asked: Prompt,
    text: Sequence[int],
    sampler: CodeSampler,
    *,
    key: int = 0,
    frames: int,
    cache: Cache | None = None,
    predictor_cache: Cache | None = None,
) -> Iterator[list[int]]:
    """One stream alone: the codes of each frame, at most `frames`, until the talker ends it.

    `text`: what follows the prompt's first token; it is padded for ever.
    """
    cache = cache or DynamicCache()
    embeddings = asked.embedded(talker)
    length = embeddings.shape[1]
    hidden, scores = talker.prefill(embeddings, torch.tensor([length]), cache)
    heard = torch.zeros_like(scores, dtype=torch.bool)
    for frame in range(frames):
        count = torch.tensor([frame])
        noise = sampler.noise(torch.tensor([key]), count)
        first = sampler.first(scores, heard, count, noise)
        if sampler.is_end(first).item():
            return
        codes = talker.frame(hidden, first, partial(sampler.other, noise), predictor_cache or DynamicCache())
        yield codes[0].tolist()
        token = text[frame] if frame < len(text) else CONFIG.text_ids.tts_pad
        hidden, scores = talker.step(codes, talker.embed_text(torch.tensor([token])), length + count, cache)
