import json
import os
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daemons import settings as settings_module
from daemons.settings import Settings
from ops import doctor, models, ports, status
from ops.cli import app
from ops.free_ports import free_port
from ops.programs import Readiness, programs
from ops.supervise import State
from tests.ops.conftest import MakeSettings


def findings(settings: Settings) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.examine(settings)}


def wrong(settings: Settings) -> dict[str, str]:
    return {what: finding.mend for what, finding in findings(settings).items() if finding.verdict == "wrong"}


def test_nothing_running_is_said_with_what_to_do(settings: Settings) -> None:
    problems = wrong(settings)
    assert problems["supervisord"] == "run `callbox up`"
    assert "callbox models pull" in problems["model silero-v6"]
    assert "callbox up" in problems["page"]
    assert findings(settings)["ports"].verdict == "ok"


def test_a_taken_port_is_named_with_its_holder_and_its_setting(settings: Settings) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", settings.tts_port + 1))
        held.listen()
        finding = findings(settings)["ports"]
    assert finding.verdict == "wrong"
    assert f"port {settings.tts_port + 1}/tcp, which tts needs, is held by process {os.getpid()}" in finding.text
    assert "CALLBOX_TTS_PORT" in finding.mend


def test_a_taken_udp_port_is_seen_and_our_own_is_not(settings: Settings) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as held:
        held.bind(("127.0.0.1", settings.livekit_udp_port))
        assert "livekit" in next(ports.taken(settings, programs(settings), set()))
        assert list(ports.taken(settings, programs(settings), {os.getpid()})) == []


def test_a_damaged_model_is_found_by_its_checksum(settings: Settings) -> None:
    for file in models.catalogue()["silero-v6"].files:
        (settings.models_dir / "silero-v6").mkdir(parents=True)
        (settings.models_dir / "silero-v6" / file.name).write_bytes(b"damaged")
    finding = findings(settings)["model silero-v6"]
    assert "wrong checksum: silero_vad.onnx" in finding.text
    assert finding.mend.startswith("rm ")


def test_a_program_that_the_listener_sees_to_is_told_from_one_that_waits_for_a_person(settings: Settings) -> None:
    tts = next(program for program in programs(settings) if program.name == "tts")

    def said(state: str, is_held: bool) -> str:
        found = doctor._program(settings, tts, State("tts", state, 0, 1, "Nov 22"), Readiness(False), is_held)
        assert found.verdict == "wrong"
        return found.text

    assert "the listener holds it back" in said("STOPPED", is_held=True)
    assert said("STOPPED", is_held=False) == "STOPPED: Nov 22"
    assert "the listener starts it again" in said("FATAL", is_held=False)
    assert said("EXITED", is_held=False) == "EXITED: Nov 22"


def test_readable_secrets_are_found(settings: Settings) -> None:
    (settings.var_dir / "secrets.env").chmod(0o644)
    assert wrong(settings)["secrets.env"].startswith("chmod 600")


def test_a_model_by_path_is_the_operators(make_settings: MakeSettings, tmp_path: Path) -> None:
    assert not any("llm" in what or str(tmp_path) in what for what in wrong(make_settings(llm_model=str(tmp_path))))
    gone = make_settings(llm_model=str(tmp_path / "gone.gguf"))
    assert wrong(gone)[f"model {tmp_path / 'gone.gguf'}"] == "correct CALLBOX_LLM_MODEL"


def test_status_reads_when_nothing_runs(settings: Settings) -> None:
    read = status.read(settings)
    assert not read.ok
    assert read.supervisord_pid is None
    assert {program.why_not for program in read.programs} == {"nobody listens", "supervisord is not running"}
    assert {program.name for program in read.programs} >= {"redis", "livekit", "stt", "llm", "tts", "agent", "nginx"}


@pytest.fixture
def cli(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name in settings_module.given():
        monkeypatch.delenv(name)
    monkeypatch.setenv("CALLBOX_VAR_DIR", str(settings.var_dir))
    return CliRunner()


def test_the_command_ends_with_1_and_writes_json(cli: CliRunner, tmp_path: Path) -> None:
    for command, key in (("doctor", "mend"), ("status", "programs")):
        ended = cli.invoke(app, [command, "--json", str(tmp_path / "out.json")])
        assert ended.exit_code == 1
        assert key in json.dumps(json.loads((tmp_path / "out.json").read_text()))


def test_a_bad_setting_is_one_line_and_78(cli: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOX_SLOTS", "many")
    ended = cli.invoke(app, ["status"])
    assert ended.exit_code == 78
    assert ended.stderr.startswith("callbox: bad settings:\n  CALLBOX_SLOTS: ")
    assert "Traceback" not in ended.stderr
    assert "Traceback" in cli.invoke(app, ["--debug", "status"]).stderr


def test_down_of_nothing_is_fine(cli: CliRunner) -> None:
    assert cli.invoke(app, ["down"]).exit_code == 0


def test_models_are_listed(cli: CliRunner) -> None:
    ended = cli.invoke(app, ["models", "list"])
    assert ended.exit_code == 0
    assert "qwen2.5-coder-0.5b" in ended.stdout


@pytest.mark.parametrize("address", ["redis://{at}/0", "redis+sentinel://{at}/callbox"])
def test_a_redis_elsewhere_that_does_not_answer_is_found(make_settings: MakeSettings, address: str) -> None:
    at = f"127.0.0.1:{free_port()}"
    there = make_settings(redis_url=address.format(at=f"somebody:hush@{at}"))
    finding = findings(there)["redis"]
    assert finding.verdict == "wrong"
    assert finding.text.startswith(f"{address.format(at=at)}: the registry does not answer")
    assert "CALLBOX_REDIS_URL" in finding.mend
    assert "redis-server" not in findings(there)


@pytest.mark.integration
def test_a_redis_elsewhere_that_answers_is_well(make_settings: MakeSettings, redis_url: str) -> None:
    assert findings(make_settings(redis_url=redis_url))["redis"].verdict == "ok"
