"""What a command loads before it does anything: who is woken at night waits for it."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daemons.settings import ROOT, environment_without_settings
from ops.cli import app
from tests.ops.conftest import MakeSettings

HEAVY = {"livekit", "numpy", "onnxruntime"}
TELLS = """
import atexit, sys
atexit.register(lambda: sys.stderr.write("loaded: " + " ".join(sys.modules)))
from ops.cli import run
run()
"""


def callbox(var_dir: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {**environment_without_settings(), "CALLBOX_VAR_DIR": str(var_dir), "COLUMNS": "200"}
    command = (sys.executable, "-c", TELLS, *words)
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", [("--help",), ("status",), ("down",), ("doctor", "--quick"), ("models", "list")])
def test_a_command_loads_nothing_heavy_that_it_does_not_need(
    make_settings: MakeSettings, var_dir: Path, words: tuple[str, ...]
) -> None:
    make_settings()
    said = callbox(var_dir, *words)
    assert said.stdout
    assert "Traceback" not in said.stderr
    loaded = said.stderr.rpartition("loaded: ")[2].split()
    assert "ops.cli" in loaded
    assert HEAVY.isdisjoint(loaded)


@pytest.mark.parametrize(("group", "command"), [("bench", "barge-in"), ("drill", "mixer")])
def test_a_group_s_commands_are_listed_and_found(group: str, command: str) -> None:
    def said(*words: str) -> str:
        return CliRunner().invoke(app, words, prog_name="callbox").output

    assert f"\n  {command} " in said(group, "--help")
    assert f"callbox {group} {command}" in said(group, command, "--help")
    assert f"Did you mean '{command}'" in said(group, command[:-1])
