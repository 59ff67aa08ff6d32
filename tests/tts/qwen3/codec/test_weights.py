import json
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

from daemons.errors import ConfigurationError  # noqa: E402
from daemons.tts.engines.qwen3.codec.config import CodecConfig  # noqa: E402
from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder  # noqa: E402
from daemons.tts.engines.qwen3.codec.network import Decoder  # noqa: E402
from daemons.tts.engines.qwen3.codec.weights import build, load, random_weights  # noqa: E402
from tests.tts.qwen3.codec.streams import TINY, assert_exact, published, random_codes  # noqa: E402
from tests.tts.qwen3.codec.test_config import PUBLISHED  # noqa: E402

CODEBOOK = "decoder.quantizer.rvq_rest.vq.layers.3._codebook."
ENCODER: dict[str, Tensor] = {
    "encoder.downsample.conv.weight": torch.zeros(3),
    "decoder.quantizer.rvq_first.input_proj.weight": torch.zeros(16, 32, 1),
    "decoder.quantizer.rvq_rest.input_proj.weight": torch.zeros(16, 32, 1),
}


def checkpoint(folder: Path, weights: dict[str, Tensor]) -> Path:
    """`folder`, made a tiny checkpoint's `speech_tokenizer`."""
    tiny = {name: getattr(TINY, name) for name in PUBLISHED["decoder_config"] if hasattr(TINY, name)}
    decoder = PUBLISHED["decoder_config"] | tiny | {"num_key_value_heads": TINY.num_attention_heads}
    (folder / "config.json").write_text(json.dumps(PUBLISHED | {"decoder_config": decoder}))
    save_file(weights, folder / "model.safetensors")
    return folder


def test_a_checkpoint_is_loaded_without_its_encoder(
    tmp_path: Path, weights: dict[str, Tensor], decoder: IncrementalDecoder
) -> None:
    codes = random_codes(1, 3, seed=1)
    loaded = IncrementalDecoder(load(checkpoint(tmp_path, weights | ENCODER)))
    assert loaded.config == TINY
    assert torch.equal(loaded.decode(codes), decoder.decode(codes))


def test_a_checkpoint_of_half_precision_is_computed_in_full(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    halved = {name: weight.bfloat16() for name, weight in weights.items()}
    loaded = load(checkpoint(tmp_path, halved))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    same = build(TINY, {name: weight.float() for name, weight in halved.items()})
    codes = random_codes(1, 3, seed=1)
    assert torch.equal(IncrementalDecoder(loaded).decode(codes), IncrementalDecoder(same).decode(codes))


def test_an_entry_that_was_hardly_used_is_divided_by_the_least_usage(weights: dict[str, Tensor]) -> None:
    rare = dict(weights)
    rare[CODEBOOK + "cluster_usage"] = torch.full((TINY.codebook_size,), 1e-7)
    rare[CODEBOOK + "embedding_sum"] = weights[CODEBOOK + "embedding_sum"] * 1e-5
    codes = random_codes(1, 3, seed=1)
    with torch.inference_mode():
        assert_exact(IncrementalDecoder(build(TINY, rare)).decode(codes), published(TINY, rare)(codes)[:, 0])


def without(weights: dict[str, Tensor]) -> None:
    del weights["decoder.pre_transformer.norm.weight"]


def with_another(weights: dict[str, Tensor]) -> None:
    weights["decoder.pre_transformer.layers.2.input_layernorm.weight"] = torch.ones(32)


def with_a_stranger(weights: dict[str, Tensor]) -> None:
    weights["speaker.weight"] = torch.ones(32)


def misshapen(weights: dict[str, Tensor]) -> None:
    weights["decoder.decoder.6.conv.weight"] = torch.ones(1, 4, 5)
    for stage in (0, 1):
        weights[f"decoder.upsample.{stage}.1.norm.bias"] = torch.ones(3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without, "decoder.pre_transformer.norm.weight is missing"),
        (with_another, "decoder.pre_transformer.layers.2.input_layernorm.weight is superfluous"),
        (with_a_stranger, "speaker.weight is superfluous"),
        (misshapen, r"6.conv.weight is \(1, 4, 5\) where \(1, 4, 7\) is wanted, .*0.1.norm.bias is .*1.1.norm.bias is"),
        (dict.clear, "decoder.0.conv.bias is missing.*and 198 more"),
    ],
)
def test_other_weights_are_refused_in_words(
    tmp_path: Path, weights: dict[str, Tensor], change: Callable[[dict[str, Tensor]], None], words: str
) -> None:
    changed = dict(weights)
    change(changed)
    with pytest.raises(ConfigurationError, match=words) as refusal:
        load(checkpoint(tmp_path, changed))
    assert str(tmp_path) in str(refusal.value)


def test_a_file_that_is_missing_or_broken_is_refused_in_words(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    file = checkpoint(tmp_path, weights) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path)
    file.unlink()
    with pytest.raises(ConfigurationError, match="holds neither"):
        load(tmp_path)


def test_names_and_shapes_are_those_of_the_published_checkpoint() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(parameter.shape) for name, parameter in Decoder(CodecConfig()).named_parameters()}
    assert len(shapes) == 271 - 2  # two are the encoder's
    assert (
        shapes.items()
        >= {
            "quantizer.rvq_first.vq.layers.0._codebook.embedding_sum": (2048, 256),
            "quantizer.rvq_rest.vq.layers.14._codebook.cluster_usage": (2048,),
            "quantizer.rvq_rest.output_proj.weight": (512, 256, 1),
            "pre_conv.conv.weight": (1024, 512, 3),
            "pre_transformer.input_proj.weight": (512, 1024),
            "pre_transformer.layers.7.self_attn.o_proj.weight": (512, 1024),
            "pre_transformer.layers.7.self_attn_layer_scale.scale": (512,),
            "pre_transformer.layers.7.mlp.down_proj.weight": (512, 1024),
            "pre_transformer.layers.7.mlp_layer_scale.scale": (512,),
            "pre_transformer.output_proj.bias": (1024,),
            "upsample.1.0.conv.weight": (1024, 1024, 2),
            "upsample.1.1.dwconv.conv.weight": (1024, 1, 7),
            "upsample.1.1.pwconv1.weight": (4096, 1024),
            "upsample.1.1.gamma": (1024,),
            "decoder.0.conv.weight": (1536, 1024, 7),
            "decoder.1.block.1.conv.weight": (1536, 768, 16),
            "decoder.4.block.0.beta": (192,),
            "decoder.4.block.4.act2.alpha": (96,),
            "decoder.4.block.4.conv1.conv.weight": (96, 96, 7),
            "decoder.4.block.4.conv2.conv.weight": (96, 96, 1),
            "decoder.5.alpha": (96,),
            "decoder.6.conv.weight": (1, 96, 7),
        }.items()
    )


def test_a_seed_makes_the_same_weights_again_and_another_seed_others() -> None:
    first, again, other = (random_weights(TINY, seed) for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_no_weight_hides_the_others(weights: dict[str, Tensor]) -> None:
    for name, weight in weights.items():
        assert float(weight.abs().max()) > 0.02, name
        assert weight.numel() == 1 or float(weight.std()) > 0.01, name


def test_nothing_asks_for_a_gradient(decoder: IncrementalDecoder) -> None:
    assert not any(parameter.requires_grad for parameter in decoder.network.parameters())
