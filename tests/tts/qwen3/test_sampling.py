"""What is ruled out, against transformers' processors; what is drawn, against the distribution and its key."""

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

import torch

from daemons.errors import ConfigurationError
from daemons.tts.engines.qwen3.sampling import (
    GREEDY,
    CodeSampler,
    Sampling,
    SpeechSampling,
    draw,
    filtered,
    gumbel_noise,
    read_sampling,
    request_key,
)
from tests.tts.qwen3.tiny import CONFIG

EOS = CONFIG.codec_ids.eos


def scores_of(seed: int, rows: int, codes: int) -> torch.Tensor:
    return 3 * torch.randn(rows, codes, generator=torch.Generator().manual_seed(seed))


def whole(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(0.7, 0, 0.8),
        Sampling(1.3, 12, 0.95),
        Sampling(1.0, 5000, 1.0),
        Sampling(1.0, 0, 0.0),
        Sampling(2, 1, 0.1),
    ],
)
def test_the_filters_are_those_of_transformers(sampling: Sampling) -> None:
    process = pytest.importorskip("transformers", reason="transformers is not installed")
    scores = scores_of(1, 6, 200)
    scores[0, :50] = scores[0, 0]  # what ties with the last that stays, stays
    chain = process.LogitsProcessorList([process.TemperatureLogitsWarper(float(sampling.temperature))])
    if sampling.top_k:
        chain.append(process.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(process.TopPLogitsWarper(sampling.top_p))
    theirs = chain(torch.zeros(6, 0, dtype=torch.int64), scores)
    assert torch.equal(filtered(scores, sampling), theirs)


@pytest.mark.parametrize("frames", [0, 1, 2, 7])
def test_first_codes_are_penalised_and_suppressed_as_by_generate(frames: int) -> None:
    process = pytest.importorskip("transformers", reason="transformers is not installed")
    scores = scores_of(2, 4, CONFIG.codes)
    scores[2:] -= 20  # a penalty lowers what is negative, too
    scores[:, EOS] = 30  # would be taken if it may be
    had = torch.randint(0, 48, (4, frames), generator=torch.Generator().manual_seed(frames))
    chain = process.LogitsProcessorList(
        [
            process.RepetitionPenaltyLogitsProcessor(1.5),
            process.MinNewTokensLengthLogitsProcessor(0, 2, EOS),
            process.SuppressTokensLogitsProcessor([code for code in range(48, CONFIG.codes) if code != EOS]),
        ]
    )
    theirs = chain(had, scores.clone())
    heard = torch.zeros(4, CONFIG.codes, dtype=torch.bool).scatter_(1, had, True)
    sampler = CodeSampler(CONFIG, SpeechSampling(GREEDY, GREEDY, repetition_penalty=1.5))
    first = sampler.first(scores, heard, torch.full((4,), frames), sampler.noise(whole(1, 2, 3, 4), whole(0, 0, 0, 0)))
    assert first.tolist() == theirs.argmax(-1).tolist()
    assert sampler.is_end(first).tolist() == [frames >= 2] * 4
    assert heard.gather(1, first[:, None]).all()


def test_draws_have_the_distribution_of_the_filtered_scores() -> None:
    draws, sampling = 20_000, Sampling(0.8, 20, 0.9)
    scores = scores_of(3, 1, 60) / 2
    expected = filtered(scores, sampling).softmax(-1)[0] * draws
    noise = gumbel_noise(torch.full((draws,), request_key(5, "x")), torch.arange(draws), 2, 60)
    for codebook in (0, 1):
        found = draw(scores.expand(draws, -1), sampling, noise[:, codebook]).bincount(minlength=60)
        possible = expected > 0
        assert not found[~possible].any()
        chi_square = ((found - expected)[possible] ** 2 / expected[possible]).sum().item()
        freedom = int(possible.sum()) - 1
        assert 5 < freedom < 20
        assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_noise_is_gumbel_and_its_columns_are_independent() -> None:
    noise = gumbel_noise(torch.arange(500), torch.arange(500) * 7, 4, 100).double()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)
    flat = torch.corrcoef(noise.flatten(0, 1).T)
    assert (flat - torch.eye(100)).abs().max() < 0.12  # of 2000 samples: 5 deviations
    codebooks = torch.corrcoef(noise.transpose(1, 2).flatten(0, 1).T)
    assert (codebooks - torch.eye(4)).abs().max() < 0.025
    assert noise.isfinite().all()


def test_noise_is_a_function_of_its_key_alone() -> None:
    keys, frames = whole(request_key(1, "a"), -3, request_key(1, "b")), whole(4, 9, 4)
    together = gumbel_noise(keys, frames, 16, 30)
    for row in range(3):
        assert torch.equal(together[row : row + 1], gumbel_noise(keys[row : row + 1], frames[row : row + 1], 16, 30))
    assert torch.equal(together, gumbel_noise(keys, frames, 16, 50)[..., :30])
    seen = {tuple(values) for values in together.flatten(0, 1).tolist()}
    assert len(seen) == 3 * 16
    assert not torch.equal(gumbel_noise(keys, frames + 1, 16, 30)[:, :-1], together[:, 1:])


def test_a_checkpoint_says_how_it_wants_its_codes_chosen(tmp_path: Path) -> None:
    assert read_sampling(tmp_path) == SpeechSampling()
    wishes = {"do_sample": True, "top_k": 40, "temperature": 0.8, "repetition_penalty": 1.1, "subtalker_top_p": 0.5}
    (tmp_path / "generation_config.json").write_text(json.dumps(wishes))
    assert read_sampling(tmp_path) == SpeechSampling(Sampling(0.8, 40, 1.0), Sampling(0.9, 50, 0.5), 1.1)
    wishes = {"do_sample": False, "subtalker_dosample": False, "subtalker_temperature": 0.7}
    (tmp_path / "generation_config.json").write_text(json.dumps(wishes))
    assert read_sampling(tmp_path) == SpeechSampling(GREEDY, GREEDY)
    for spoiled in ("", "[]", '{"top_k": "many"}', '{"temperature": -1}', '{"subtalker_top_p": 2}'):
        (tmp_path / "generation_config.json").write_text(spoiled)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read_sampling(tmp_path)


def test_keys_tell_seeds_and_requests_apart() -> None:
    keys = {request_key(seed, request) for seed in range(20) for request in ("", "1", "2", "12")}
    assert len(keys) == 80
    assert request_key(7, "a") == request_key(7, "a")
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_greedy_is_the_highest_score() -> None:
    scores = scores_of(4, 5, 40)
    assert torch.equal(
        draw(scores, GREEDY, gumbel_noise(torch.arange(5), torch.arange(5), 1, 40)[:, 0]), scores.argmax(-1)
    )
