"""`callbox bench registry`, small: every figure is there, and a missed bound fails it."""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from ops.bench import registry
from ops.cli import app

pytestmark = pytest.mark.integration

SCRIPTS = ("acquire", "renew", "release")


@pytest.fixture(autouse=True)
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds are for a machine that has time; a test's may have none."""
    monkeypatch.setattr(registry, "P99_LIMIT_MS", 60_000.0)
    monkeypatch.setattr(registry, "LEAST_SCRIPTS_PER_S", 0.1)


def processes() -> set[int]:
    return {process.pid for process in psutil.Process().children(recursive=True)}


def run(folder: Path, *options: str, exit_code: int = 0) -> dict[str, Any]:
    written = folder / "bench.json"
    result = CliRunner().invoke(app, ["bench", "registry", *options, "--json", str(written)])
    assert result.exit_code == exit_code, result.output
    data: dict[str, Any] = json.loads(written.read_text())
    return data


def test_every_figure_of_one_run(tmp_path: Path) -> None:
    before = processes()
    data = run(tmp_path, "--rounds", "120", "--clients", "4", "--seconds", "0.5")
    samples = data["samples"]
    for name in ("no-op script", "one write", *SCRIPTS):
        assert samples[name]["n"] == 120
        assert 0 < samples[name]["median"] <= samples[name]["p95"] <= samples[name]["p99"] <= samples[name]["max"]
    assert samples["acquire, 4 clients"]["n"] == samples["release, 4 clients"]["n"] > 0
    for name in SCRIPTS:
        for which in ("median", "p99"):
            expected = samples[name][which] / samples["no-op script"][which]
            assert data["ratios"][f"{name} to the no-op, {which}"] == pytest.approx(expected)
    assert samples["no-op script"]["median"] < samples["acquire"]["median"], "a no-op that costs as much is none"
    counts = data["counts"]
    assert counts["no-op scripts a second, 4 clients"] > counts["registry scripts a second, 4 clients"] > 0
    assert processes() == before, "it ends what it starts"


def test_few_rounds_have_no_p99(tmp_path: Path) -> None:
    data = run(tmp_path, "--rounds", "5", "--clients", "1", "--seconds", "0.5")
    assert "p99" not in data["samples"]["acquire"]
    assert data["bounds"][0]["name"] == "acquire, max"
    assert data["bounds"][0]["measured"] == data["samples"]["acquire"]["max"]


def test_a_missed_bound_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "P99_LIMIT_MS", 0.0)
    data = run(tmp_path, "--rounds", "5", "--clients", "1", "--seconds", "0.5", exit_code=1)
    assert not data["ok"]
