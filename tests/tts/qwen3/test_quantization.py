"""A talker in 8 bits: what is rounded, how far, and where that is refused."""

import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("torchao", reason="torchao is not installed")

from torch import Tensor  # noqa: E402

from daemons.errors import ConfigurationError  # noqa: E402
from daemons.tts.engines.qwen3.drift import Speaker, drift, logit_drift  # noqa: E402
from daemons.tts.engines.qwen3.quantization import Quantization, check_quantization, quantize  # noqa: E402
from daemons.tts.engines.qwen3.sampling import CodeSampler, SpeechSampling  # noqa: E402
from daemons.tts.engines.qwen3.talker import Talker  # noqa: E402
from tests.tts.qwen3.codec.streams import decoder_of_chance  # noqa: E402
from tests.tts.qwen3.tiny import CONFIG, opening, tiny_talker  # noqa: E402

CUDA = torch.device("cuda", 0)
FRAMES = 12


def quantized(kind: Quantization) -> Talker:
    talker = tiny_talker()
    quantize(talker, kind)
    return talker


def is_in_a_layer(name: str) -> bool:
    return ".layers." in name and "norm" not in name


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_the_matrices_of_all_layers_are_rounded_and_nothing_else(kind: Quantization) -> None:
    exact, rounded = tiny_talker().state_dict(), quantized(kind).state_dict()
    assert exact.keys() == rounded.keys()
    for name, weight in rounded.items():
        if is_in_a_layer(name):
            assert weight.qdata.dtype == {"int8": torch.int8, "fp8": torch.float8_e4m3fn}[kind]
            assert weight.qdata.itemsize == 1
        else:
            assert torch.equal(weight, exact[name])
    assert sum(map(is_in_a_layer, rounded)) == (2 + 2) * 7


def test_int8_is_off_by_half_a_step_at_most() -> None:
    exact, rounded = tiny_talker().state_dict(), quantized("int8").state_dict()
    for name in filter(is_in_a_layer, exact):
        half_a_step = exact[name].abs().amax(1, keepdim=True) / 127.5 / 2
        off = (rounded[name].dequantize() - exact[name]).abs()
        # The highest value of a row would be step 127.5, and is cut off at 127: half a step, too.
        assert (off <= half_a_step * 1.001).all()
        assert off.max() > 0


def test_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    exact, same = tiny_talker().state_dict(), quantized("none").state_dict()
    assert all(torch.equal(exact[name], same[name]) for name in exact)


def test_without_torchao_it_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(ConfigurationError, match=r"int8 needs torchao.*callbox\[torch\]"):
        quantized("int8")


def test_a_cpu_takes_int8_and_no_fp8() -> None:
    check_quantization("int8", torch.device("cpu"))
    check_quantization("none", torch.device("cpu"))
    with pytest.raises(ConfigurationError, match="fp8 wants a graphics card; on cpu there is int8"):
        check_quantization("fp8", torch.device("cpu"))


def test_a_card_must_know_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a card says of itself is put in its place: there is none here."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    check_quantization("int8", CUDA)
    with pytest.raises(ConfigurationError, match=r"capability 8\.9; NVIDIA A100 has 8\.0, and could have int8"):
        check_quantization("fp8", CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    check_quantization("fp8", CUDA)


def test_it_goes_where_it_is_sent() -> None:
    """It is rounded on the CPU, and then brought to a card; `meta` is the one other device here."""
    weight = quantized("int8").to("meta").model.layers[0].mlp.up_proj.weight
    assert weight.device.type == weight.qdata.device.type == "meta"
    assert weight.qdata.dtype == torch.int8


# How far it strays


def strayed(rounded: Talker) -> dict[str, Any]:
    sampler = CodeSampler(CONFIG, SpeechSampling())
    speakers = (
        Speaker(talker, CONFIG, sampler, opening(talker), key=3, frames=FRAMES) for talker in (tiny_talker(), rounded)
    )
    figures: dict[str, Any] = drift(*speakers, range(20, 20 + FRAMES), decoder_of_chance())
    return figures


def test_a_talker_does_not_stray_from_itself() -> None:
    figures = strayed(tiny_talker())
    assert figures["same_codes"] == 1
    for network, n in (("talker", FRAMES), ("predictor", 15 * FRAMES)):
        assert figures[network]["n"] == n
        assert figures[network]["same_likeliest"] == 1
        assert figures[network]["kl_nats"] == 0
        assert figures[network]["snr_db"] > 200


def test_eight_bits_stray_little_and_fp8_farther_than_int8() -> None:
    int8, fp8 = strayed(quantized("int8")), strayed(quantized("fp8"))
    for network in ("talker", "predictor"):
        assert 30 < int8[network]["snr_db"] < 60
        assert 15 < fp8[network]["snr_db"] < int8[network]["snr_db"] - 6
        assert 0 < int8[network]["kl_nats"] < fp8[network]["kl_nats"] < 0.05
    assert 0.9 < int8["same_codes"] <= 1


def test_other_weights_stray_far() -> None:
    figures = strayed(tiny_talker(seed=1))
    assert figures["talker"]["snr_db"] < 3
    assert figures["same_codes"] < 0.6  # the noise is the same
    assert figures["audio_snr_db"] < 3


def test_what_all_codes_have_in_common_is_no_drift() -> None:
    logits: Tensor = torch.randn(4, 30, generator=torch.Generator().manual_seed(1)).double()
    shifted = logit_drift(logits, logits + 5)
    assert shifted["snr_db"] > 200
    assert abs(shifted["kl_nats"]) < 1e-12
    noisy = logit_drift(logits, logits + 0.1 * torch.randn(4, 30, generator=torch.Generator().manual_seed(2)))
    assert noisy["snr_db"] == pytest.approx(20, abs=1.5)
    # For small noise the divergence is half its variance (Fisher information of a softmax, averaged over its codes).
    assert noisy["kl_nats"] == pytest.approx(0.1**2 / 2, rel=0.3)
