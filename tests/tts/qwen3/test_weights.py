"""Checkpoints as they are published, and those that are not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

import torch  # noqa: E402

from daemons.errors import ConfigurationError  # noqa: E402
from daemons.tts.engines.qwen3.weights import load_talker, random_talker  # noqa: E402
from tests.tts.qwen3.tiny import CONFIG, tiny_talker  # noqa: E402

HEAD = "talker.codec_head.weight"


def checkpoint() -> dict[str, Any]:
    tensors = {f"talker.{name}": tensor for name, tensor in tiny_talker().state_dict().items()}
    return {**tensors, "speaker_encoder.fc.weight": torch.zeros(2)}


def single(folder: Path, tensors: dict[str, Any]) -> None:
    safetensors.save_file(tensors, folder / "model.safetensors")


def sharded(folder: Path, tensors: dict[str, Any]) -> None:
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, members in shards.items():
        safetensors.save_file({name: tensors[name] for name in members}, folder / shard)
    places = {name: shard for shard, members in shards.items() for name in members}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("save", [single, sharded])
def test_a_checkpoint_is_read_whole(tmp_path: Path, save: Callable[[Path, dict[str, Any]], None]) -> None:
    save(tmp_path, checkpoint())
    talker = load_talker(tmp_path, CONFIG)
    expected = tiny_talker().state_dict()
    found = talker.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(talker.model.rotary.frequencies, tiny_talker().model.rotary.frequencies)
    assert not any(parameter.requires_grad for parameter in talker.parameters())


def test_weights_are_rounded_as_asked(tmp_path: Path) -> None:
    single(tmp_path, checkpoint())
    talker = load_talker(tmp_path, CONFIG, dtype=torch.bfloat16)
    assert talker.codec_head.weight.dtype == torch.bfloat16
    assert torch.equal(talker.codec_head.weight, tiny_talker().codec_head.weight.bfloat16())
    assert talker.model.rotary.frequencies.dtype == torch.float32


def without_head(tensors: dict[str, Any]) -> None:
    del tensors[HEAD]


def with_more(tensors: dict[str, Any]) -> None:
    tensors["talker.surplus.weight"] = torch.zeros(1)


def with_a_wide_head(tensors: dict[str, Any]) -> None:
    tensors[HEAD] = torch.zeros(CONFIG.codes, 33)


def without_anything(tensors: dict[str, Any]) -> None:
    for name in list(tensors)[1:]:
        del tensors[name]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_head, r"talker\.codec_head\.weight is missing$"),
        (with_more, r"talker\.surplus\.weight is superfluous$"),
        (with_a_wide_head, r"talker\.codec_head\.weight is \(1072, 33\) where \(1072, 32\) is wanted$"),
        (without_anything, r"is missing, .* and \d+ more$"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, spoil: Callable[[dict[str, Any]], None], words: str) -> None:
    tensors = checkpoint()
    spoil(tensors)
    single(tmp_path, tensors)
    with pytest.raises(ConfigurationError, match=words) as refusal:
        load_talker(tmp_path, CONFIG)
    assert str(tmp_path) in str(refusal.value)


def test_no_files_and_broken_ones_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="holds neither"):
        load_talker(tmp_path, CONFIG)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_talker(tmp_path, CONFIG)


def test_random_weights_hang_on_the_seed_and_repeat_nowhere() -> None:
    one, same, other = (random_talker(CONFIG, seed).state_dict() for seed in (1, 1, 2))
    for name, tensor in one.items():
        assert torch.equal(tensor, same[name])
        assert not torch.equal(tensor, other[name])
        assert tensor.isfinite().all()
    queries = [one[f"model.layers.{layer}.self_attn.q_proj.weight"] for layer in range(2)]
    assert not torch.equal(*queries)
    assert queries[0].std().item() == pytest.approx(32**-0.5, rel=0.1)
    assert one["model.norm.weight"].mean().item() == pytest.approx(1, abs=0.1)
