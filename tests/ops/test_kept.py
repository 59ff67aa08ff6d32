import stat
from pathlib import Path

import pytest

from daemons import settings as settings_module
from daemons.errors import ConfigurationError
from ops import kept


@pytest.fixture(autouse=True)
def own_box(var_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in settings_module.given():
        monkeypatch.delenv(name)
    monkeypatch.setenv("CALLBOX_VAR_DIR", str(var_dir))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_setting_given_once_is_there_for_good(var_dir: Path) -> None:
    assert kept.keep(var_dir, {"CALLBOX_SLOTS": "3", "CALLBOX_VAR_DIR": str(var_dir)}).slots == 3
    assert kept.keep(var_dir, {"CALLBOX_HTTP_PORT": "8111"}).slots == 3
    assert settings_module.load().http_port == 8111
    assert mode(var_dir / "callbox.env") == 0o600
    assert "VAR_DIR" not in (var_dir / "callbox.env").read_text()


def test_an_empty_value_forgets(var_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep(var_dir, {"CALLBOX_SLOTS": "3"})
    monkeypatch.setenv("CALLBOX_SLOTS", "")
    assert kept.keep(var_dir, settings_module.given()).slots == 2


@pytest.mark.parametrize("value", ["a b", "it's", 'say "hi"', "back\\slash", "100%", "#7", " x "])
def test_any_value_comes_back_as_it_was(var_dir: Path, value: str) -> None:
    assert kept.keep(var_dir, {"CALLBOX_TTS_VOICE": value}).tts_voice == value


def test_a_bad_setting_is_not_kept(var_dir: Path) -> None:
    kept.keep(var_dir, {"CALLBOX_SLOTS": "3"})
    with pytest.raises(ConfigurationError, match="CALLBOX_SLOTS"):
        kept.keep(var_dir, {"CALLBOX_SLOTS": "many"})
    assert settings_module.load().slots == 3


def test_a_misspelt_setting_is_named(var_dir: Path) -> None:
    assert kept.unknown({"CALLBOX_SLOT": "3", "CALLBOX_SLOTS": "3"}) == ["CALLBOX_SLOT is no setting; CALLBOX_SLOTS is"]


def test_secrets_are_made_once_and_for_nobody_else(var_dir: Path) -> None:
    kept.make_secrets(var_dir)
    first = settings_module.load()
    kept.make_secrets(var_dir)
    assert settings_module.load() == first
    assert len(first.livekit_api_secret.get_secret_value()) >= 32
    assert len(first.operator_key.get_secret_value()) >= 32
    assert first.token_secret.get_secret_value() != first.livekit_api_secret.get_secret_value()
    assert mode(var_dir / "secrets.env") == 0o600


def test_a_pods_address_and_port_are_read_anew_and_do_not_override_the_operator(
    var_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNPOD_POD_ID", "pod7")
    monkeypatch.setenv("RUNPOD_PUBLIC_IP", "203.0.113.7")
    monkeypatch.setenv("RUNPOD_TCP_PORT_70000", "10321")
    assert kept.keep(var_dir, {"CALLBOX_PROFILE": "runpod"}).livekit_tcp_port == 10321
    monkeypatch.setenv("RUNPOD_TCP_PORT_70000", "10999")
    again = settings_module.load()
    assert (again.livekit_tcp_port, again.livekit_node_ip) == (10999, "203.0.113.7")
    assert again.page_url == "https://pod7-8080.proxy.runpod.net/"
    assert kept.keep(var_dir, {"CALLBOX_LIVEKIT_TCP_PORT": "7999"}).livekit_tcp_port == 7999
