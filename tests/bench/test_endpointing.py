"""`callbox bench endpointing`: the marks, what a policy is held to, and a small run on real speech."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from typer.testing import CliRunner

from daemons.agent.ending import Waits
from daemons.audio import STT_RATE_HZ, to_int16
from ops.bench import pauses
from ops.bench.endpointing import CHOSEN, Heard, Row, policies
from ops.bench.pauses import Half, Kind, Pause, Recording
from ops.cli import app
from tests.speech_samples import librivox, needs_librivox


def test_the_marks_are_sound() -> None:
    marks = pauses.marks_of(pauses.MARKS)
    for marked in marks.recordings:
        found, from_s = pauses.parsed(marked.pauses)
        assert marked.archive in marks.archives
        assert [pause.at_s for pause in found] == sorted({pause.at_s for pause in found})
        assert from_s == sorted(from_s)
    for half in get_args(Half):
        kinds = [pause.kind for one in marks.recordings if one.half == half for pause in pauses.parsed(one.pauses)[0]]
        assert {kinds.count(kind) >= 5 for kind in get_args(Kind)} == {True}


def heard(kind: Kind, silence_ms: float, text: str = "Turn it off.", later: float | None = None) -> Heard:
    return Heard("talk", "test", kind, f"{kind} {silence_ms}", silence_ms, text, 0.5, later)


def test_a_pause_that_lasts_as_long_as_the_wait_is_cut_off() -> None:
    talk = [heard("inside", 192), heard("inside", 320), heard("inside", 640), heard("sentence", 640), heard("end", 960)]
    row = Row.of("test", "300 ms", lambda _: 300.0, talk)
    assert row.inside == (2, 3)
    assert row.audible == (1, 3), "of a reply that begins after 400 ms, who goes on at 320 hears nothing"
    assert row.utterances == (2, 5)
    assert row.between == (1, 1)
    assert (row.wait_ms.n, row.wait_ms.median) == (1, 300)


def test_a_second_look_shortens_a_wait_and_never_below_the_time_it_takes() -> None:
    by_name = policies(Waits(200, 1500))
    again = next(policy for name, policy in by_name.items() if "again" in name)
    unsure = heard("end", 2000)
    assert again(unsure) == by_name[CHOSEN](unsure)
    assert again(heard("end", 2000, later=0.9)) == 380
    assert again(heard("end", 2000, later=0.2)) == by_name[CHOSEN](unsure)


@pytest.mark.integration
@needs_librivox
def test_a_run_on_recorded_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence that a pause of 0.6 s is cut into, and the same without one."""
    samples = to_int16(librivox()[0][0])
    quiet = np.random.default_rng(0).normal(0, 10, STT_RATE_HZ).astype(np.int16)
    half_s = 2.85  # "... had then leisure to consider how / much there might be prudently ..."
    cut = int(half_s * STT_RATE_HZ)
    paused = np.concatenate([samples[:cut], quiet[: STT_RATE_HZ * 6 // 10], samples[cut:], quiet])
    whole_s = len(samples) / STT_RATE_HZ
    spoken = [
        Recording("paused", "talk", half, paused, [Pause(half_s, "inside"), Pause(whole_s + 0.6 - 0.2, "end")], [0.0])
        for half in get_args(Half)
    ]
    monkeypatch.setattr(pauses, "recordings", lambda _: spoken)
    written = tmp_path / "bench.json"
    result = CliRunner().invoke(app, ["bench", "endpointing", "--json", str(written)])
    data = json.loads(written.read_text())
    assert data["facts"]["marked, but not found by the VAD"] == 0
    rows = {row["policy"]: row for row in data["rows"] if row["half"] == "test"}
    assert rows["480 ms of silence"]["inside"] == [1, 1]
    assert rows[CHOSEN]["inside"] == [0, 1]
    assert rows[CHOSEN]["wait_ms"]["median"] < 480
    assert {one["kind"]: one["text"].split()[0] for one in data["heard"]} == {"inside": "And", "end": "And"}
    assert data["samples"]["CPU of the turn model"]["n"] == 4
    assert [bound["held"] for bound in data["bounds"]] == [True, True]
    assert result.exit_code == 0
