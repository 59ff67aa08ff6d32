"""What the cards shall hold. Where nvidia-smi is a script here, it stands for cards that this machine has not."""

from pathlib import Path

import pytest

from daemons.errors import ConfigurationError
from daemons.settings import Settings
from ops import vram
from ops.vram import Budget, Card, budgets_of, refuse_impossible, tts_mib

L40S = Card(0, "NVIDIA L40S", 46068, 3)
L4 = Card(1, "NVIDIA L4", 23034, 3)
CARDS = {card.number: card for card in (L40S, L4)}
SPEECH = {"tts_engine": "qwen3", "tts_model": "hf:Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice", "tts_device": "cuda"}
MODEL = {"llm_engine": "openai", "vllm_devices": "0", "vllm_model": "hf:acme/m", "vllm_gpu_memory_utilization": 0.6}


@pytest.fixture
def make(tmp_path: Path) -> "Make":
    return Make(tmp_path)


class Make:
    def __init__(self, models_dir: Path) -> None:
        self.models_dir = models_dir

    def __call__(self, **given: object) -> Settings:
        return Settings.model_validate({"models_dir": self.models_dir, "slots": 2, "direct_slots": 2, **given})


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def over(settings: Settings, *, in_use: bool = False) -> dict[int, int]:
    return {budget.card.number: budget.over_mib for budget in budgets_of(settings, CARDS, in_use=in_use)}


def complaint(settings: Settings, *, in_use: bool = False) -> str:
    with pytest.raises(ConfigurationError) as refused:
        refuse_impossible(settings, budgets_of(settings, CARDS, in_use=in_use))
    return str(refused.value)


# What is needed


def test_a_box_without_a_card_asks_for_none(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for settings in (make(), make(**SPEECH | {"tts_device": "cpu"}), make(**SPEECH | {"tts_engine": "hibari"})):
        assert not vram.wanted(settings)
        assert vram.check(settings, in_use=True) == []
        assert tts_mib(settings) == 0


def test_speech_is_its_weights_a_cache_for_each_place_and_allowances(make: Make) -> None:
    """By hand: 2.51 GB of weights; for each place 2,048 + 800 positions of 114,688 bytes, and 10 MB of codec state."""
    allowances = vram.CONTEXT_MIB + vram.GRAPHS_MIB + vram.WORKSPACE_MIB
    assert tts_mib(make(**SPEECH)) == round((2.51e9 + 4 * ((2048 + 800) * 114_688 + 1e7)) / 2**20) + allowances
    assert tts_mib(make(**SPEECH, direct_slots=6)) - tts_mib(make(**SPEECH)) == round(4 * (311.5 + 1e7 / 2**20))


def test_weights_that_are_here_are_weighed(make: Make) -> None:
    settings = make(**SPEECH)
    published = vram.weights_bytes(settings)
    folder = settings.models_dir / "hf/Qwen--Qwen3-TTS-12Hz-0.6B-CustomVoice"
    for name, size in (("model.safetensors", 3000), ("speech_tokenizer/model.safetensors", 500), ("vocab.json", 77)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(size))
    assert (published, vram.weights_bytes(settings)) == (2.51e9, 3500)
    assert vram.weights_bytes(make(**SPEECH | {"tts_model": str(folder)})) == 3500


def test_a_voice_of_unknown_size_counts_as_the_larger(make: Make) -> None:
    larger = make(**SPEECH | {"tts_model": "hf:Qwen/Qwen3-TTS-12Hz-1.7B-CustomVoice"})
    assert vram.weights_bytes(make(**SPEECH | {"tts_model": "hf:acme/voice"})) == vram.weights_bytes(larger) == 4.54e9


@pytest.mark.parametrize("kind", ["int8", "fp8"])
def test_quantized_layers_take_half(make: Make, kind: str) -> None:
    """By hand: 28 layers of the talker and 5 of the predictor, each of Q, K, V, O and three matrices of the MLP."""
    for size, hidden, inner in (("0.6B", 1024, 3072), ("1.7B", 2048, 6144)):
        of_talker, of_predictor = (
            width * (2048 + 1024 + 1024 + 2048) + 3 * width * mlp for width, mlp in ((hidden, inner), (1024, 3072))
        )
        voice = SPEECH | {"tts_model": f"hf:Qwen/Qwen3-TTS-12Hz-{size}-CustomVoice"}
        saved = vram.weights_bytes(make(**voice)) - vram.weights_bytes(make(**voice, tts_quantization=kind))
        assert saved == pytest.approx(28 * of_talker + 5 * of_predictor, rel=0.01)
    unknown = SPEECH | {"tts_model": "hf:acme/voice"}
    assert vram.weights_bytes(make(**unknown, tts_quantization=kind)) == 4.54e9 - 0.52e9


# Whether it fits


def test_both_on_one_card_are_added(make: Make) -> None:
    both = make(**SPEECH, **MODEL)
    speech_mib = tts_mib(both)
    assert over(both) == {0: round(0.6 * 46068) + speech_mib + 500 - 46068}
    refuse_impossible(both, budgets_of(both, CARDS, in_use=True))
    apart = make(**SPEECH | {"tts_device": "cuda:1"}, **MODEL)
    assert over(apart) == {0: round(0.6 * 46068) + 500 - 46068, 1: speech_mib + 500 - 23034}


def test_what_cannot_be_is_refused_with_its_numbers_and_what_would_help(make: Make) -> None:
    both = make(**SPEECH, **MODEL | {"vllm_gpu_memory_utilization": 0.95})
    said = complaint(both)
    assert f"card 0 (NVIDIA L40S, 46068 MiB): tts {tts_mib(both)} MiB, vllm 43765 MiB, 500 MiB in reserve" in said
    assert f"{over(both)[0]} MiB too many" in said
    assert "CALLBOX_TTS_DEVICE or CALLBOX_VLLM_DEVICES" in said
    assert "2394 MiB of weights" in said
    assert "CALLBOX_TTS_QUANTIZATION=int8, which saves 496 MiB" in said
    assert "QUANTIZATION" not in complaint(both.model_copy(update={"tts_quantization": "int8"}))
    assert "others" not in said


def test_the_share_that_is_named_fits(make: Make) -> None:
    for given in (0.9, 0.95, 1.0):
        settings = make(**SPEECH, **MODEL | {"vllm_gpu_memory_utilization": given})
        named = complaint(settings).partition("VLLM_GPU_MEMORY_UTILIZATION to ")[2].split()[0]
        refuse_impossible(mended := make(**SPEECH, **MODEL | {"vllm_gpu_memory_utilization": float(named)}), [])
        (budget,) = budgets_of(mended, CARDS, in_use=False)
        assert -0.01 * 46068 - 1 <= budget.over_mib <= 0


def test_a_card_too_small_for_speech_gets_no_advice_about_a_share_of_nothing(make: Make) -> None:
    settings = make(**SPEECH, **MODEL)
    small = Budget(Card(0, "GTX", 4096, 0), tts_mib=tts_mib(settings), vllm_mib=2458, others_mib=0)
    with pytest.raises(ConfigurationError, match="smaller voice") as refused:
        refuse_impossible(settings, [small])
    assert "lower CALLBOX_VLLM" not in str(refused.value)


def test_what_others_hold_counts_while_this_box_is_down(make: Make) -> None:
    busy = {0: L40S._replace(used_mib=20_000)}
    settings = make(**SPEECH, **MODEL)
    refuse_impossible(settings, budgets_of(settings, busy, in_use=False))
    with pytest.raises(ConfigurationError, match=r"others 20000 MiB.*end what others run there"):
        refuse_impossible(settings, budgets_of(settings, busy, in_use=True))


def test_every_card_that_is_too_small_is_told(make: Make) -> None:
    settings = make(**SPEECH | {"tts_device": "cuda:1"}, **MODEL | {"vllm_devices": "0,1"}, slots=64)
    said = complaint(settings.model_copy(update={"vllm_gpu_memory_utilization": 1.0}))
    assert [line.strip()[:6] for line in said.splitlines()] == ["card 0", "card 1"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"tts_device": "cuda:7"},
            "CALLBOX_TTS_DEVICE=cuda:7: there is no card 7; nvidia-smi lists 0 ",
        ),
        ({"vllm_devices": "0,5"}, "CALLBOX_VLLM_DEVICES=0,5: there is no card 5"),
    ],
)
def test_a_card_that_is_not_there_is_named(make: Make, given: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        budgets_of(make(**SPEECH | MODEL | given), CARDS, in_use=False)


# What nvidia-smi says


def test_cards_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is as nvidia-smi 570 writes it for this query."""
    nvidia_smi(tmp_path, monkeypatch, '[ "$#" = 2 ] && printf "0, NVIDIA L40S, 46068, 3\\n1, NVIDIA L4, 23034, 3\\n"')
    assert vram.read_cards() == CARDS


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            'echo "NVIDIA-SMI has failed because it could not communicate with the driver."; exit 9',
            "ends with 9: NVIDIA",
        ),
        ('echo "0, NVIDIA GB10, [N/A], [N/A]"', "tells no card's memory: 0, NVIDIA GB10"),
        ("exec sleep 5", "does not answer within 0.2 s"),
    ],
)
def test_a_driver_that_does_not_tell_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    monkeypatch.setattr(vram, "NVIDIA_SMI_TIMEOUT_S", 0.2 if "sleep" in script else 5.0)
    nvidia_smi(tmp_path, monkeypatch, script)
    with pytest.raises(ConfigurationError, match=said.replace("[", r"\[")):
        vram.read_cards()


def test_without_nvidia_smi_nothing_is_started(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"nvidia-smi is not to be found.*CALLBOX_TTS_DEVICE at cpu"):
        vram.check(make(**SPEECH), in_use=True)


def test_vllm_is_looked_for_before_its_cards(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"vllm is not installed at .*uv pip install .*CALLBOX_VLLM_BIN"):
        vram.check(make(**MODEL, vllm_bin=tmp_path / "vllm"), in_use=True)
