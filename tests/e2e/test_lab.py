"""Calls that the lab dials and judges, through LiveKit."""

import json
import subprocess
from pathlib import Path

import aiohttp
import pytest

from daemons import wire
from daemons.settings import ROOT
from ops.figures import Bound
from ops.lab.callers import Voice
from ops.lab.calls import Dialled, dial_case
from ops.lab.cases import cases
from ops.lab.run import Run, judge
from ops.lab.verdict import report
from ops.private_box import CALLBOX, PrivateBox
from ops.robot import dial, happened

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

LATENCIES = ("first audio heard", "made → sent")  # of a machine that other tests may share


async def dialled(box: PrivateBox, case: str) -> Dialled:
    return await dial_case(box.settings, await Voice.of(box.settings, cases().named(case)))


def missed(run: Run) -> list[Bound]:
    bounds = report(run, "the box's own").bounds
    return [bound for bound in bounds if not bound.held and not any(name in bound.name for name in LATENCIES)]


async def test_a_call_through_the_whole_box_sounds_as_it_was_made(box: PrivateBox) -> None:
    run = judge([await dialled(box, "memory")])
    assert len(run.turns) == 2
    assert missed(run) == []
    for one in run.turns:
        assert one.recorded.said is not None
        assert one.recorded.said.duration_ms > 500
    [call] = run.dialled[0].calls
    assert call.reception.samples > 0


async def test_an_interrupted_answer_is_judged_as_far_as_it_was_sent(box: PrivateBox) -> None:
    run = judge([await dialled(box, "interruption-early")])
    told, answer = run.turns
    assert missed(run) == []
    assert told.recorded.interruption is not None
    assert told.recorded.interruption.ended
    assert told.recorded.turn.interrupted
    assert not answer.recorded.turn.interrupted


async def test_nothing_is_kept_of_a_call_whose_caller_did_not_ask_for_it(box: PrivateBox) -> None:
    async with dial(box.settings.door_url) as robot:
        greeting = await robot.event(happened("reply_heard"), 30)
        trace = wire.recording_of(robot.call_id, greeting["turn"])
        url = f"http://127.0.0.1:{box.settings.tts_port}/tts/traces/{trace}.wav"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 404


def lab(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CALLBOX, "lab", *words], cwd=ROOT, timeout=240, text=True, capture_output=True, check=False)


@pytest.mark.timeout(600)
def test_a_run_by_command_leaves_a_report_and_can_be_replayed(tmp_path: Path) -> None:
    done = lab("run", "--suite", "ci", "--out", tmp_path / "run", "--json", tmp_path / "run.json")
    verdict = json.loads((tmp_path / "run.json").read_text())
    missed = [bound for bound in verdict["bounds"] if not bound["held"]]
    assert [bound for bound in missed if not any(name in bound["name"] for name in LATENCIES)] == [], done.stdout
    assert done.returncode == bool(missed)
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    names = [f"{one.name}-1" for one in cases().of("ci")]
    assert all(name in page for name in names)

    again = lab(
        "replay", tmp_path / "run/interruption-early", "--out", tmp_path / "again", "--json", tmp_path / "2.json"
    )
    assert again.returncode in (0, 1), again.stderr
    replayed = json.loads((tmp_path / "again/replay-interruption-early-1/turn.json").read_text())
    assert replayed["over"] == {"at_s": 0.5, "yields": True}
    assert replayed["turn"]["interrupted"]

    compared = lab("compare", tmp_path / "run", tmp_path / "run")
    assert compared.returncode == 1
    assert "turns of both: 3, at least 10" in compared.stdout
