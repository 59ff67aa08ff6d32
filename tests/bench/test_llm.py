"""`callbox bench llm`, small: every figure is there, and the cache is what makes the difference."""

import json
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from ops.bench import llm
from ops.cli import app

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_every_figure_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "STOP_LIMIT_MS", 30_000.0)  # the machine of a test may have no time
    monkeypatch.setattr(llm, "LEAST_PRIORITY_GAIN", 0.001)
    monkeypatch.setattr(llm, "LEAST_CACHE_GAIN", 0.001)
    monkeypatch.setattr(llm, "GROWING_TURNS", 3)
    monkeypatch.setattr(llm, "ANSWER_TOKENS", 6)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    written = tmp_path / "bench.json"
    options = ["--rounds", "1", "--model", "smollm2-135m", "--json", str(written)]
    result = CliRunner().invoke(app, ["bench", "llm", *options])
    assert result.exit_code == 0, result.output
    data = json.loads(written.read_text())
    samples, counts = data["samples"], data["counts"]
    assert {name: sample["n"] for name, sample in samples.items()} == {
        "first turn": 1,
        "second turn, cached": 1,
        "second turn, not cached": 1,
        "first turn, two at once": 2,
        "first turn, beside a guess that makes way": 1,
        "first turn, beside a guess that does not": 1,
        "client closed → work stopped, while it writes": 1,
        "client closed → work stopped, while it reads": 1,
        "later turns of a growing history": 2,
    }
    assert counts["tokens to read, second turn, cached (median)"] < 40
    assert counts["tokens to read, second turn, not cached (median)"] > 150
    assert counts["prompt tokens of the last turn"] > counts["of which were cached"] > 100
    assert counts["tokens a second, one answer (median)"] > 0
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before, "it ends what it starts"
