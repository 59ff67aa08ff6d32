from pathlib import Path

import pytest

from daemons import settings as settings_module
from daemons.errors import ConfigurationError
from daemons.settings import Settings
from ops import choice, fit, models
from tests.ops.conftest import MakeSettings
from tests.ops.hub import Hub

GGUF = b"GGUF" + bytes(1000)
VOICE = {"config.json": b'{"tts_model_type": "custom_voice"}', "model.safetensors": b"w", "vocab.json": b"{}"}
CODEC = {"config.json": b"{}", "model.safetensors": b"w"}
CHAT = b'{"architectures": ["TinyForCausalLM"]}'


@pytest.fixture(autouse=True)
def own_box(var_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings_module.given():
        monkeypatch.delenv(name)
    monkeypatch.setenv("CALLBOX_VAR_DIR", str(var_dir))


@pytest.fixture(autouse=True)
def all_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether torch is installed here is not what these tests ask."""
    monkeypatch.setattr(fit, "find_spec", lambda name: name)


def write(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_file_of_one_s_own(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, **{"mine.gguf": GGUF})
    monkeypatch.chdir(tmp_path)
    chosen = choice.choose(settings, "mine.gguf")
    assert (chosen.role, chosen.programs) == ("llm", ("llm",))
    assert chosen.changes == {"CALLBOX_LLM_MODEL": ("qwen2.5-coder-0.5b", str(tmp_path / "mine.gguf"))}
    choice.keep(settings, chosen)
    now = settings_module.load()
    assert now.llm_model == str(tmp_path / "mine.gguf")
    assert models.needed(now) == ["silero-v6", "smart-turn-v3.2", "moonshine-tiny-en"]
    assert choice.choose(now, "./mine.gguf").changes == {}
    assert chosen.way_back == "CALLBOX_LLM_MODEL=qwen2.5-coder-0.5b callbox up"


def test_a_folder_changes_the_engine_too(settings: Settings, tmp_path: Path) -> None:
    folder = write(tmp_path / "hf", **{"config.json": CHAT, "model.safetensors": b"", "tokenizer.json": b"{}"})
    chosen = choice.choose(settings, str(folder))
    assert chosen.changes == {
        "CALLBOX_LLM_MODEL": ("qwen2.5-coder-0.5b", str(folder)),
        "CALLBOX_LLM_ENGINE": ("llamacpp", "transformers"),
    }


def test_an_engine_that_runs_it_stays(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(llm_engine="transformers")
    folder = write(tmp_path / "gguf", **{"a.gguf": GGUF})
    assert set(choice.choose(settings, str(folder)).changes) == {"CALLBOX_LLM_MODEL"}
    settings = make_settings(llm_engine="openai")
    assert choice.choose(settings, str(folder)).changes["CALLBOX_LLM_ENGINE"] == ("openai", "llamacpp")


def test_a_name_of_the_catalogue_and_back(make_settings: MakeSettings, var_dir: Path) -> None:
    """What is there already is not fetched, whatever its bytes are."""
    settings = make_settings(hub_offline=True)
    for name in ("qwen2.5-coder-0.5b", "smollm2-135m"):
        file = models.catalogue()[name].files[0].name
        write(settings.models_dir / name, **{file: GGUF})
    choice.keep(settings, choice.choose(settings, "smollm2-135m"))
    now = settings_module.load()
    assert now.llm_model == "smollm2-135m"
    choice.keep(now, choice.choose(now, "qwen2.5-coder-0.5b"))
    assert settings_module.load().llm_model == "qwen2.5-coder-0.5b"


def test_a_model_of_the_hub(make_settings: MakeSettings) -> None:
    with Hub(repositories={"acme/m": {"m.gguf": GGUF}}) as hub:
        settings = make_settings(hub_url=hub.url)
        chosen = choice.choose(settings, "hf:acme/m/m.gguf")
        choice.keep(settings, chosen)
    now = settings_module.load()
    assert now.llm_model == "hf:acme/m/m.gguf"
    assert "hf:acme/m/m.gguf" in models.needed(now)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.gguf": b"<html>"}, "no GGUF file"),
        ({"a.gguf": GGUF, "b.gguf": GGUF}, "holds 2 models"),
        ({"a.onnx": b""}, "nothing that an engine here runs"),
        ({}, "nothing that an engine here runs"),
        ({"config.json": CHAT}, "nothing that an engine here runs"),
        ({"config.json": b"{", "m.safetensors": b""}, "config.json"),
        ({"config.json": b'{"architectures": ["BertModel"]}', "m.safetensors": b""}, "made for BertModel"),
        (
            {
                "config.json": b'{"architectures": ["WhisperForConditionalGeneration"], "is_encoder_decoder": true}',
                "m.safetensors": b"",
            },
            "made for Whisper",
        ),
    ],
)
def test_what_no_engine_runs_is_refused_and_nothing_changes(
    settings: Settings, tmp_path: Path, files: dict[str, bytes], said: str
) -> None:
    before = settings_module.load()
    with pytest.raises(ConfigurationError, match=said):
        choice.choose(settings, str(write(tmp_path / "m", **files)))
    assert settings_module.load() == before


@pytest.mark.parametrize("what", ["nonesuch", "/no/such/path", "./nonesuch.gguf"])
def test_what_is_not_there_is_named(settings: Settings, what: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{what} is no model"):
        choice.choose(settings, what)


def test_speech_and_voices_have_their_roles(settings: Settings, tmp_path: Path) -> None:
    ear = write(tmp_path / "ear", **dict.fromkeys(fit.MOONSHINE, b""))
    voice = write(tmp_path / "voice", **{"a.onnx": b"", "a.onnx.json": b"{}"})
    gate = write(tmp_path / "gate", **{fit.SILERO: b""})
    assert set(choice.choose(settings, str(ear)).changes) == {"CALLBOX_STT_MODEL"}
    assert set(choice.choose(settings, str(voice)).changes) == {"CALLBOX_TTS_MODEL", "CALLBOX_TTS_ENGINE"}
    assert choice.choose(settings, str(gate)).programs == ("stt", "agent")


@pytest.mark.parametrize(("stt_engine", "hears"), [("moonshine", ("agent",)), ("omni", ("stt", "agent"))])
def test_a_program_that_does_not_run_is_none_to_restart(
    make_settings: MakeSettings, tmp_path: Path, stt_engine: str, hears: tuple[str, ...]
) -> None:
    settings = make_settings(llm_engine="openai", llm_omni=True, stt_engine=stt_engine)
    gate = write(tmp_path / "gate", **{fit.SILERO: b""})
    ear = write(tmp_path / "ear", **dict.fromkeys(fit.MOONSHINE, b""))
    assert choice.choose(settings, str(gate)).programs == hears
    assert choice.choose(settings, str(ear)).programs == ()


def test_an_engine_that_is_not_installed_is_said(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "find_spec", lambda name: None)
    folder = write(tmp_path / "hf", **{"config.json": CHAT, "model.safetensors": b""})
    with pytest.raises(ConfigurationError, match="extra `torch`"):
        choice.choose(settings, str(folder))


def test_a_stronger_setting_is_not_overruled_in_silence(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, **{"a.gguf": GGUF})
    chosen = choice.choose(settings, str(tmp_path / "a.gguf"))
    monkeypatch.setenv("CALLBOX_LLM_MODEL", "smollm2-135m")
    with pytest.raises(ConfigurationError, match="CALLBOX_LLM_MODEL=smollm2-135m, which is stronger"):
        choice.keep(settings, chosen)


def test_an_engine_elsewhere_needs_no_model_here(make_settings: MakeSettings) -> None:
    assert models.needed(make_settings(llm_engine="openai", stt_engine="omni")) == ["silero-v6", "smart-turn-v3.2"]


def test_a_model_that_hears_needs_no_other_that_does(make_settings: MakeSettings) -> None:
    assert "moonshine-tiny-en" not in models.needed(make_settings(llm_engine="openai", llm_omni=True))


def test_a_turn_model_of_one_s_own(settings: Settings, tmp_path: Path) -> None:
    folder = write(tmp_path / "turn", **{fit.SMART_TURN: b"finer tuned"})
    chosen = choice.choose(settings, str(folder))
    assert (chosen.role, chosen.programs) == ("turn", ("agent",))
    assert chosen.changes == {"CALLBOX_TURN_MODEL": ("smart-turn-v3.2", str(folder))}


def test_a_qwen3_tts_is_a_voice(settings: Settings, tmp_path: Path) -> None:
    folder = write(tmp_path / "voice", **VOICE)
    write(folder / fit.SPEECH_TOKENIZER, **CODEC)
    chosen = choice.choose(settings, str(folder))
    assert (chosen.role, chosen.programs) == ("tts", ("tts",))
    assert chosen.changes == {
        "CALLBOX_TTS_MODEL": ("joe-us", str(folder)),
        "CALLBOX_TTS_ENGINE": ("hibari", "qwen3"),
    }
    choice.keep(settings, chosen)
    assert models.used(settings_module.load())["tts_model"] == str(folder)


def test_a_qwen3_tts_of_the_hub_is_fetched_with_its_codec(make_settings: MakeSettings) -> None:
    files = VOICE | {f"{fit.SPEECH_TOKENIZER}/{name}": content for name, content in CODEC.items()}
    with Hub(repositories={"acme/voice": files | {"README.md": b"", "sample.wav": b"RIFF"}}) as hub:
        settings = make_settings(hub_url=hub.url)
        choice.keep(settings, choice.choose(settings, "hf:acme/voice"))
    now = settings_module.load()
    assert (now.tts_engine, now.tts_model) == ("qwen3", "hf:acme/voice")
    folder = settings.models_dir / "hf/acme--voice"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == {*files, models.MANIFEST}


@pytest.mark.parametrize("kind", ["base", "voice_design"])
def test_a_qwen3_tts_without_voices_is_refused(settings: Settings, tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / "m", **VOICE | {"config.json": b'{"tts_model_type": "%s"}' % kind.encode()})
    write(folder / fit.SPEECH_TOKENIZER, **CODEC)
    with pytest.raises(ConfigurationError, match=f"of the kind {kind}; the engine qwen3 wants custom_voice"):
        choice.choose(settings, str(folder))


def test_a_voice_on_torch_says_what_it_needs(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "find_spec", lambda name: None)
    folder = write(tmp_path / "voice", **VOICE)
    write(folder / fit.SPEECH_TOKENIZER, **CODEC)
    with pytest.raises(ConfigurationError, match="the engine qwen3 needs the extra `torch`"):
        choice.choose(settings, str(folder))
