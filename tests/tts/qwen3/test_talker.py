"""The talker and its code predictor against the published classes."""

from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

from daemons.tts.engines.qwen3.cache import Cache, DynamicCache, StaticCache
from daemons.tts.engines.qwen3.config import talker_config
from daemons.tts.engines.qwen3.prompt import prompt
from daemons.tts.engines.qwen3.sampling import GREEDY, CodeSampler, SpeechSampling
from daemons.tts.engines.qwen3.talker import Talker
from tests.tts.qwen3.tiny import CONFIG, ROLE, document, published, speak, tiny_talker

ROOM = 64
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def talker() -> Talker:
    return tiny_talker()


@pytest.fixture(scope="module")
def original(talker: Talker) -> Any:
    return published(talker)


def codes_of(seed: int, frames: int) -> torch.Tensor:
    return torch.randint(0, 48, (frames, 16), generator=torch.Generator().manual_seed(seed))


def embeddings_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, 32, generator=torch.Generator().manual_seed(seed))


def static(rows: int = 1) -> StaticCache:
    return StaticCache.empty(CONFIG.transformer, rows, ROOM)


def logits(talker: Talker, prompt_embeddings: Any, codes: Any, texts: Any, cache: Cache) -> torch.Tensor:
    """After the prompt and each frame, [frames + 1, codes]."""
    length = prompt_embeddings.shape[1]
    all_scores = [talker.prefill(prompt_embeddings, torch.tensor([length]), cache)[1]]
    for frame in range(len(codes)):
        position = torch.tensor([length + frame])
        all_scores.append(talker.step(codes[frame : frame + 1], texts[frame : frame + 1], position, cache)[1])
    return torch.cat(all_scores)


def published_logits(model: Any, prompt_embeddings: Any, codes: Any, texts: Any) -> torch.Tensor:
    """The same of the published talker, all at once and without a cache."""
    talker = model.talker
    frames = [
        talker.get_input_embeddings()(code[0])
        + sum(talker.code_predictor.get_input_embeddings()[place](code[place + 1]) for place in range(15))
        + text
        for code, text in zip(codes, texts, strict=True)
    ]
    whole = torch.cat((prompt_embeddings, torch.stack(frames)[None]), 1)
    states = talker.model(inputs_embeds=whole, use_cache=False).last_hidden_state
    return talker.codec_head(states)[0, prompt_embeddings.shape[1] - 1 :]


@pytest.mark.parametrize("cache", [DynamicCache(), static()], ids=["dynamic", "static"])
def test_logits_are_the_published_ones(talker: Talker, original: Any, cache: Cache) -> None:
    prompt_embeddings, codes, texts = embeddings_of(1, 1, 7), codes_of(2, 20), embeddings_of(3, 20)
    with torch.inference_mode():
        ours = logits(talker, prompt_embeddings, codes, texts, cache)
        theirs = published_logits(original, prompt_embeddings, codes, texts)
    assert theirs.abs().max() > 1
    assert (ours - theirs).abs().max() <= TOLERANCE


@pytest.mark.parametrize("sections", [[2, 4, 2], [8, 0, 0]])
def test_how_positions_are_cut_into_sections_changes_nothing(
    talker: Talker, original: Any, sections: list[int]
) -> None:
    """Speech has one position, not three: so ordinary rotary positions are what the published talker computes."""
    described = document()
    described["talker_config"]["rope_scaling"]["mrope_section"] = sections
    embeddings = embeddings_of(1, 1, 30)
    with torch.inference_mode():
        states = [
            model.talker.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
            for model in (original, published(talker, described))
        ]
    assert torch.equal(*states)


@pytest.mark.parametrize("spoiled", ["code", "text", "position", "q_norm"])
def test_what_is_left_out_shows(talker: Talker, original: Any, spoiled: str) -> None:
    prompt_embeddings, codes, texts = embeddings_of(1, 1, 7), codes_of(2, 20), embeddings_of(3, 20)
    cache = DynamicCache()
    with torch.inference_mode():
        theirs = published_logits(original, prompt_embeddings, codes, texts)
        worse = tiny_talker()
        if spoiled == "code":
            worse.code_predictor.model.codec_embedding[14].weight.zero_()
        elif spoiled == "text":
            texts = texts * 0
        elif spoiled == "position":
            worse.model.rotary.frequencies *= 1.01
        else:
            worse.model.layers[1].self_attn.q_norm.weight.fill_(1)
        ours = logits(worse, prompt_embeddings, codes, texts, cache)
    assert (ours - theirs).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("predictor_hidden_size", [24, 32], ids=["projected", "as wide"])
@pytest.mark.parametrize("is_static", [False, True], ids=["dynamic", "static"])
def test_all_heads_of_the_predictor_are_the_published_ones(predictor_hidden_size: int, is_static: bool) -> None:
    described = document(predictor_hidden_size=predictor_hidden_size)
    config = talker_config(described)
    talker = tiny_talker(4, config)
    model = published(talker, described)
    codes, hidden = codes_of(5, 3), embeddings_of(6, 3)
    seen: list[torch.Tensor] = []

    def choose(scores: torch.Tensor, codebook: int) -> torch.Tensor:
        seen.append(scores)
        return codes[:, codebook]

    cache: Cache = StaticCache.empty(config.predictor.transformer, 3, 16) if is_static else DynamicCache()
    with torch.inference_mode():
        assert torch.equal(talker.frame(hidden, codes[:, 0], choose, cache), codes)
        theirs, _ = model.talker.forward_sub_talker_finetune(codes, hidden)
    assert theirs.shape == (3, 15, 48)
    assert (torch.stack(seen, 1) - theirs).abs().max() <= TOLERANCE


def generated(model: Any, text: list[int], frames: int, *, instruction: list[int] | None = None, **voice: str) -> Any:
    """Upstream's own `generate`, greedy: the codes [frames, 16]."""
    ids = CONFIG.text_ids
    codes, _ = model.generate(
        input_ids=[torch.tensor([[*ROLE, *text, ids.im_end, ROLE[2], *ROLE]])],
        instruct_ids=[torch.tensor([instruction])] if instruction else None,
        languages=[voice["language"]],
        speakers=[voice["speaker"]],
        non_streaming_mode=False,
        do_sample=False,
        subtalker_dosample=False,
        max_new_tokens=frames + 1,
    )
    return codes[0].tolist()


@pytest.mark.parametrize(
    ("length", "speaker", "language", "instruction"),
    [
        (6, "Ryan", "English", []),
        (1, "Ryan", "Auto", []),
        (3, "Dylan", "Auto", []),
        (2, "Dylan", "Chinese", [290, 9, 8, 291, 5]),
        (9, "Dylan", "English", []),
    ],
)
def test_greedy_codes_are_those_of_generate(length: int, speaker: str, language: str, instruction: list[int]) -> None:
    seed, frames = length, 10
    talker = tiny_talker(seed)
    text = torch.randint(10, 280, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    theirs = generated(published(talker), text, frames, instruction=instruction, speaker=speaker, language=language)
    sampler = CodeSampler(CONFIG, SpeechSampling(GREEDY, GREEDY))
    begin = prompt(CONFIG, ROLE, text[0], speaker=speaker, language=language, instruction=instruction)
    with torch.inference_mode():
        following = [*text[1:], CONFIG.text_ids.tts_eos]
        ours = list(speak(talker, begin, following, sampler, frames=frames, cache=static()))
        assert len(ours) > 2
        assert ours == theirs
        assert ours != list(speak(talker, begin, following[1:], sampler, frames=frames))  # each token is heard


def test_the_talker_ends_a_stream_where_generate_does() -> None:
    talker = tiny_talker(7)
    ended = 0
    with torch.inference_mode():
        for scale in (1.0, 2.0, 3.0):
            talker.codec_head.weight[CONFIG.codec_ids.eos] *= scale
            theirs = generated(published(talker), [11, 12, 13], 20, speaker="ryan", language="auto")
            begin = prompt(CONFIG, ROLE, 11, speaker="ryan")
            following = [12, 13, CONFIG.text_ids.tts_eos]
            ours = list(speak(talker, begin, following, CodeSampler(CONFIG, SpeechSampling(GREEDY, GREEDY)), frames=20))
            assert ours == theirs
            ended += 2 <= len(ours) < 20
    assert ended
