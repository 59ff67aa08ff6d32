"""`callbox bench health`, small: the lock is really held, and only one of the two answers meanwhile."""

import itertools
import json
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.bench.gil_holder import CALIBRATION, hold_gil
from ops.cli import app


def test_nobody_runs_while_the_lock_is_held() -> None:
    ticks_s, ended = [time.perf_counter()], threading.Event()

    def tick() -> None:
        while not ended.wait(0.001):
            ticks_s.append(time.perf_counter())

    ticking = threading.Thread(target=tick)
    ticking.start()
    time.sleep(0.05)
    held_ms = hold_gil(round(CALIBRATION * 300 / hold_gil(CALIBRATION)))
    time.sleep(0.05)
    ended.set()
    ticking.join()
    gaps_ms = [(after - before) * 1000 for before, after in itertools.pairwise(ticks_s)]
    assert held_ms > 50
    assert max(gaps_ms) > 0.9 * held_ms


@pytest.mark.integration
def test_the_child_answers_while_the_thread_cannot(tmp_path: Path) -> None:
    written = tmp_path / "bench.json"
    options = ["--holds", "2", "--seconds", "1", "--json", str(written)]
    result = CliRunner().invoke(app, ["bench", "health", *options])
    data = json.loads(written.read_text())
    assert result.exit_code == (0 if data["ok"] else 1), result.output
    held, child, thread = (data["samples"][name] for name in ("GIL held", "child process", "thread of the worker"))
    assert held["n"] == 2
    assert held["max"] > 500
    assert child["max"] < thread["max"]
    assert child["median"] < 500 < thread["max"]
    assert child["n"] > thread["n"] >= 2
    limits = {bound["name"]: (bound["measured"], bound["kind"], bound["limit"]) for bound in data["bounds"]}
    assert limits["worst answer of the child process"] == (child["max"], "at most", 500)
    assert limits["worst answer of the thread"] == (thread["max"], "at least", 500)
