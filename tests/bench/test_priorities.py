"""`callbox bench priorities`, small: every figure is there, and the two chat workers differ in what is compared."""

import json
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from ops.bench import priorities
from ops.cli import app

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_every_figure_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priorities, "LEAST_GAIN", 0.001)  # one round of a busy machine says nothing
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    written = tmp_path / "bench.json"
    options = ["--rounds", "1", "--model", "smollm2-135m", "--json", str(written)]
    result = CliRunner().invoke(app, ["bench", "priorities", *options])
    assert result.exit_code == 0, result.output
    data = json.loads(written.read_text())
    assert len(data["samples"]) == 14
    assert all(sample["n"] == 1 for sample in data["samples"].values())
    assert set(data["ratios"]) >= {bound["name"] for bound in data["bounds"]}
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before, "it ends what it starts"
