"""`callbox bench stt`, small: every figure is there, and a missed bound is told."""

import json
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from ops.bench import stt
from ops.cli import app
from tests.speech_samples import needs_librivox

pytestmark = pytest.mark.integration


@needs_librivox
def test_every_figure_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stt, "RTF_LIMIT", 30.0)  # the machine of a test may have no time
    monkeypatch.setattr(stt, "PARTIALS_COST_LIMIT", 100.0)
    monkeypatch.setattr(stt, "STOP_LIMIT_MS", 0.001)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    written = tmp_path / "bench.json"
    result = CliRunner().invoke(app, ["bench", "stt", "--rounds", "2", "--json", str(written)])
    data = json.loads(written.read_text())
    assert {name: sample["n"] for name, sample in data["samples"].items()} == {
        "1 s of audio": 2,
        "2 s of audio": 2,
        "4 s of audio": 2,
        "8 s of audio": 2,
        "4 s, partials on": 2,
        "4 s, partials off": 2,
        "a partial of 4 s": 2,
        "4 s, two at once": 4,
        "client closed → work stopped, a file": 2,
        "client closed → work stopped, a commit": 2,
    }
    assert data["facts"]["words"] == 71
    assert data["counts"]["word error rate"] < 0.08
    assert [bound["held"] for bound in data["bounds"]] == [True, True, True, False, False]
    assert result.exit_code == 1
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before, "it ends what it starts"


def test_without_recorded_speech_it_says_how_to_get_some(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["bench", "stt", "--speech", str(tmp_path)])
    assert result.exit_code == 1
    assert "apt install pocketsphinx-testdata" in result.stderr
