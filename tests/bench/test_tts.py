"""`callbox bench tts`, small: every gate is there, and each can be missed."""

import json
import math
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from daemons.audio import Samples
from ops.bench import golden, tts
from ops.bench.speaking import Heard
from ops.bench.tts import Taken
from ops.cli import app
from ops.run import StepFailed
from tests.bench.test_waves import voice

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine of a test may have none; few seams say little of what is usual."""
    monkeypatch.setattr(tts, "FIRST_AUDIO_LIMIT_MS", 30_000.0)
    monkeypatch.setattr(tts, "LEAST_EARLIER", 0.001)
    monkeypatch.setattr(tts, "WORSE_WORDS_LIMIT_PCT", 30.0)
    monkeypatch.setattr(tts, "LEVEL_LIMIT_DB", 6.0)
    monkeypatch.setattr(tts, "JUMP_LIMIT", 4.0)


@pytest.mark.integration
def test_every_gate_of_one_run_and_the_golden_audio_it_keeps(tmp_path: Path) -> None:
    written, kept_in = tmp_path / "bench.json", tmp_path / "golden"
    options = [
        "--runs",
        "2",
        "--answers",
        "2",
        "--rounds",
        "8",
        "--golden",
        str(kept_in),
        "--out",
        str(tmp_path / "out"),
    ]
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    result = CliRunner().invoke(app, ["bench", "tts", *options, "--set-golden", "--json", str(written)])
    assert result.exit_code == 0, result.output
    data = json.loads(written.read_text())
    assert data == json.loads((tmp_path / "out/summary.json").read_text())
    measured = {bound["name"]: bound["measured"] for bound in data["bounds"]}
    assert measured["different audio of one text"] == 1
    assert measured["SNR to the golden audio, least"] == 120
    assert measured["duration written word by word, against all at once"] == 0
    assert measured["segments said twice"] == measured["audio that is broken"] == measured["errors under stress"] == 0
    assert data["counts"]["seams"] >= 8
    assert data["samples"]["long-1, fast: first audio"]["n"] == 2
    page = (tmp_path / "out/report.html").read_text()
    assert "Every gate held." in page
    assert page.count("<svg") > 10
    made = json.loads((kept_in / "made.json").read_text())
    assert made["engine"] == "hibari/heart"
    assert {"machine", "versions", "at"} <= made.keys()

    assert {process.pid for process in psutil.Process().children(recursive=True)} == before, "it ends what it starts"


def heard(samples: Samples) -> Heard:
    return Heard(samples, first_ms=10.0, whole_ms=20.0, rtf=0.1)


def test_audio_that_is_not_the_golden_one_misses_the_gate(tmp_path: Path) -> None:
    taken = Taken(engine="e/v")
    taken.heard["short", "fast"].append(heard(voice(1.0)))
    golden.save(tmp_path, taken.audio, taken.engine)
    kept = golden.load(tmp_path, "e/v")
    assert all(bound.held for bound in tts.golden_bounds(taken, kept))
    taken.heard["short", "fast"][0] = heard(np.roll(voice(1.0), 100))
    assert [bound.held for bound in tts.golden_bounds(taken, kept)] == [False, True]
    taken.heard["short", "full"].append(heard(voice(1.0)))
    assert [bound.held for bound in tts.golden_bounds(taken, kept)] == [False, False]
    assert tts.golden_bounds(taken, None) == []
    with pytest.raises(StepFailed, match="--set-golden"):
        golden.load(tmp_path, "another/voice")


def test_growth_is_counted_from_when_the_worker_is_warm() -> None:
    warming, steady = [100.0 + 50 * n for n in range(5)], [400.0] * 15
    flat_kb = tts.growth_kb([size * 1024 for size in [*warming, *steady]])
    assert abs(flat_kb) < 1e-6
    growing = [1024.0 * 7 * tts.AT_ONCE * n for n in range(20)]
    assert tts.growth_kb(growing) == pytest.approx(7)
    assert math.isnan(tts.growth_kb([1.0]))
