import os
from pathlib import Path

import pytest

from daemons import settings as settings_module
from daemons.errors import ConfigurationError
from daemons.settings import PREFIX, ROOT, Settings, load


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what tells settings, nothing is set."""
    for name in os.environ:
        if name.startswith((PREFIX, "RUNPOD_", "HF_")):
            monkeypatch.delenv(name)


@pytest.fixture
def var_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CALLBOX_VAR_DIR", str(tmp_path))
    return tmp_path


def complaint() -> str:
    with pytest.raises(ConfigurationError) as refused:
        load()
    return str(refused.value)


# Where a value comes from


def test_a_bare_machine_needs_no_setting(var_dir: Path) -> None:
    settings = load()
    assert (settings.profile, settings.slots, settings.http_port) == ("cpu", 2, 8080)
    assert settings.redis == "redis://127.0.0.1:6380/0"
    assert settings.page_url == "http://localhost:8080/"


def test_the_strongest_source_wins(var_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load().slots == 2
    (var_dir / "secrets.env").write_text("CALLBOX_SLOTS=3\n")
    assert load().slots == 3
    (var_dir / "callbox.env").write_text("CALLBOX_SLOTS=4\n")
    assert load().slots == 4
    monkeypatch.setenv("CALLBOX_SLOTS", "5")
    assert load().slots == 5
    monkeypatch.setenv("CALLBOX_SLOTS", "")
    assert load().slots == 4, "an empty value is none"


@pytest.mark.parametrize("written", ["runpod", "'runpod'", '"runpod"  # the pod'])
def test_a_profile_is_kept_or_given_and_weaker_than_what_the_operator_says(
    var_dir: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    assert "CALLBOX_TLS_BY_PROXY=true" in (ROOT / "etc/profiles/runpod.env").read_text()
    kept = var_dir / "callbox.env"
    kept.write_text(f"CALLBOX_PROFILE={written}\n")
    assert (load().profile, load().tls_by_proxy) == ("runpod", True)
    kept.write_text(f"CALLBOX_PROFILE={written}\nCALLBOX_TLS_BY_PROXY=false\n")
    assert not load().tls_by_proxy
    monkeypatch.setenv("CALLBOX_PROFILE", "cpu")
    assert load().profile == "cpu"


@pytest.mark.parametrize("profile", ["cpu", "gpu", "runpod"])
def test_every_profile_is_a_file_whose_settings_exist(
    var_dir: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    lines = (ROOT / f"etc/profiles/{profile}.env").read_text().splitlines()
    assert {line.partition("=")[0] for line in lines if line and not line.startswith("#")} <= known
    monkeypatch.setenv("CALLBOX_PROFILE", profile)
    assert load().profile == profile


def test_names_that_others_gave_are_understood(var_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert (load().hub_url, load().hub_offline) == ("https://mirror.example", True)
    monkeypatch.setenv("CALLBOX_HUB_URL", "https://ours.example")
    assert load().hub_url == "https://ours.example"


def test_a_pod_says_where_it_is_at_each_boot(var_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"RUNPOD_POD_ID": "abc", "RUNPOD_PUBLIC_IP": "203.0.113.7", "RUNPOD_TCP_PORT_70000": "43210"}
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert load().public_host == "", "only with its profile"
    monkeypatch.setenv("CALLBOX_PROFILE", "runpod")
    settings = load()
    assert settings.page_url == "https://abc-8080.proxy.runpod.net/"
    assert (settings.livekit_node_ip, settings.livekit_tcp_port) == ("203.0.113.7", 43210)
    monkeypatch.setenv("CALLBOX_PUBLIC_HOST", "calls.example")
    assert load().public_host == "calls.example", "the operator knows better"


@pytest.mark.parametrize(
    ("given", "page_url"),
    [
        ({"HTTP_PORT": "9999"}, "http://localhost:9999/"),
        ({"PUBLIC_HOST": "box.example"}, "https://box.example:8443/"),
        ({"PUBLIC_HOST": "box.example", "TLS_BY_PROXY": "yes"}, "https://box.example/"),
    ],
)
def test_the_page_is_where_callers_open_it(
    var_dir: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], page_url: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(PREFIX + name, value)
    assert load().page_url == page_url


# What is wrong, in words


def test_every_bad_setting_has_a_line_of_its_own(var_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOX_SLOTS", "many")
    monkeypatch.setenv("CALLBOX_DRAIN_S", "inf")
    (var_dir / "callbox.env").write_text("CALLBOX_LOG_LEVEL=LOUD\n")
    first, *lines = complaint().splitlines()
    assert first == "bad settings:"
    assert sorted(line.split(":")[0].strip() for line in lines) == [
        "CALLBOX_DRAIN_S",
        "CALLBOX_LOG_LEVEL",
        "CALLBOX_SLOTS",
    ]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CALLBOX_PROFILE", "tpu", "CALLBOX_PROFILE: Input should be 'cpu', 'gpu' or 'runpod'"),
        ("CALLBOX_HUB_OFFLINE", "maybe", "CALLBOX_HUB_OFFLINE: Input should be a valid boolean"),
        ("CALLBOX_HTTP_PORT", "65535", "CALLBOX_HTTP_PORT: Input should be less than or equal to 65534"),
        ("CALLBOX_SLOTS", "0", "CALLBOX_SLOTS: Input should be greater than or equal to 1"),
        ("CALLBOX_ACCESS_KEY", "short", "CALLBOX_ACCESS_KEY: at least 8 letters"),
        ("CALLBOX_OPERATOR_KEY", "short", "CALLBOX_OPERATOR_KEY: at least 8 letters"),
        ("CALLBOX_ACCESS_KEY", 'spaces and "quotes"', "CALLBOX_ACCESS_KEY: at least 8 letters"),
        ("CALLBOX_REDIS_URL", "localhost:6380", "CALLBOX_REDIS_URL: redis://HOST:PORT/DB"),
        ("CALLBOX_REDIS_URL", "redis://localhost:port/0", "CALLBOX_REDIS_URL: Port could not be cast"),
    ],
)
def test_a_bad_value_is_told_by_name(
    var_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    assert said in complaint()


def test_a_secret_is_never_shown(var_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOX_ACCESS_KEY", "hush!")
    assert "hush" not in complaint()
    monkeypatch.setenv("CALLBOX_ACCESS_KEY", "a-long-secret")
    assert "a-long-secret" not in repr(load())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("CALLBOX_STT_PORT", "9000", "CALLBOX_TTS_PORT takes port 9000, which CALLBOX_STT_PORT (or its health) takes"),
        ("CALLBOX_STT_PORT", "9001", "CALLBOX_TTS_PORT takes port 9001, which CALLBOX_STT_PORT (or its health) takes"),
        ("CALLBOX_HTTP_PORT", "9001", "CALLBOX_TTS_PORT takes port 9001, which CALLBOX_HTTP_PORT"),
        ("CALLBOX_LIVEKIT_UDP_PORT", "7880", "CALLBOX_LIVEKIT_UDP_PORT takes port 7880, which CALLBOX_LIVEKIT_PORT"),
    ],
)
def test_two_programs_on_one_port_are_found_before_they_start(
    var_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    assert said in complaint()


def test_a_file_that_cannot_be_read_is_told(var_dir: Path) -> None:
    (var_dir / "callbox.env").write_bytes(b"CALLBOX_TTS_VOICE=\xff\xfe\n")
    assert complaint().startswith("settings cannot be read:")


def test_a_program_can_be_given_an_environment_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOX_SLOTS", "3")
    assert settings_module.given() == {"CALLBOX_SLOTS": "3"}
    without = settings_module.environment_without_settings()
    assert "CALLBOX_SLOTS" not in without
    assert without["PATH"] == os.environ["PATH"]


# A model that hears


def test_a_model_that_hears_needs_no_stt() -> None:
    assert Settings().call_roles == ("agent", "stt", "llm", "tts")
    assert Settings().stt_runs
    for engine, sees in (("openai", True), ("transformers", False)):
        omni = Settings(llm_omni=True, llm_engine=engine)
        assert omni.call_roles == ("agent", "llm", "tts")
        assert (omni.stt_runs, omni.llm_sees) == (False, sees)
        assert Settings(llm_omni=True, llm_engine=engine, stt_engine="omni").stt_runs, "for clients of its door"


def test_an_engine_that_only_reads_cannot_hear(var_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOX_LLM_OMNI", "true")
    assert "CALLBOX_LLM_OMNI wants CALLBOX_LLM_ENGINE=openai or transformers" in complaint()


# Cards


def test_vllm_runs_where_it_has_cards_and_chat_has_no_other_upstream() -> None:
    here = {"llm_engine": "openai", "vllm_devices": "0,2", "vllm_model": "hf:acme/m"}
    settings = Settings.model_validate(here)
    assert (settings.vllm_runs, settings.vllm_cards) == (True, (0, 2))
    assert settings.vllm_url == "http://127.0.0.1:8000/v1"
    for other in ({"llm_engine": "transformers"}, {"llm_upstream_url": "http://elsewhere/v1"}, {"vllm_devices": ""}):
        settings = Settings.model_validate(here | other)
        assert (settings.vllm_runs, settings.vllm_cards) == (False, ())


def test_speech_has_a_card_where_its_engine_can_use_one() -> None:
    cards = {"cpu": None, "cuda": 0, "cuda:0": 0, "cuda:3": 3}
    for device, card in cards.items():
        assert Settings(tts_engine="qwen3", tts_device=device).tts_card == card
        assert Settings(tts_engine="hibari", tts_device=device).tts_card is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"TTS_DEVICE": "gpu"}, "CALLBOX_TTS_DEVICE: cpu, cuda or cuda:NUMBER is wanted"),
        ({"TTS_DEVICE": "cuda:"}, "CALLBOX_TTS_DEVICE: cpu, cuda or cuda:NUMBER is wanted"),
        ({"VLLM_DEVICES": "all"}, "CALLBOX_VLLM_DEVICES: numbers of cards are wanted, each once"),
        ({"VLLM_DEVICES": "0,"}, "CALLBOX_VLLM_DEVICES: numbers of cards are wanted, each once"),
        ({"VLLM_DEVICES": "1,01"}, "CALLBOX_VLLM_DEVICES: numbers of cards are wanted, each once"),
        ({"VLLM_DEVICES": "0", "LLM_ENGINE": "openai"}, "CALLBOX_VLLM_DEVICES wants CALLBOX_VLLM_MODEL: hf:"),
        ({"VLLM_GPU_MEMORY_UTILIZATION": "1.1"}, "CALLBOX_VLLM_GPU_MEMORY_UTILIZATION: Input should be less than"),
        (
            {"VLLM_DEVICES": "0", "LLM_ENGINE": "openai", "VLLM_MODEL": "hf:acme/m", "VLLM_PORT": "8080"},
            "CALLBOX_VLLM_PORT takes port 8080, which CALLBOX_HTTP_PORT",
        ),
    ],
)
def test_a_card_that_cannot_be_is_told_by_name(
    var_dir: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(PREFIX + name, value)
    assert said in complaint()


def test_the_gpu_profile_speaks_and_answers_on_one_card_and_gives_way_to_what_is_said(
    var_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLBOX_PROFILE", "gpu")
    settings = load()
    assert (settings.tts_card, settings.vllm_cards, settings.stt_runs) == (0, (0,), False)
    assert settings.load_timeout_s >= 900, "vLLM loads for minutes, and the chat worker with it"
    monkeypatch.setenv("CALLBOX_LLM_UPSTREAM_URL", "http://elsewhere:8000/v1")
    assert not load().vllm_runs
