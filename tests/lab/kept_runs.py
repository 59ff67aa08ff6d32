"""Runs that were kept: turns whose recordings are known, and what they leave."""

from pathlib import Path
from typing import Any

import numpy as np

from daemons.settings import Settings
from ops.caller import Turn
from ops.lab import evidence
from ops.lab.calls import Call, Dialled, RecordedTurn
from ops.lab.cases import Case, Line
from ops.lab.mutate import FAULTS
from ops.lab.run import Judged, Run, judged
from ops.lab.self_test import as_heard
from ops.lab.verdict import report
from ops.lab.versions import versions
from ops.robot import Reception
from tests.lab.recordings import recordings
from tests.lab.test_verdict import QUESTION, SILENCE, pcm, turn

# One turn's trace, in ms after the caller's last sound; the first take was of words that were not all
EVENTS: dict[str, list[float]] = {
    "user_started": [-1500],
    "user_stopped": [-20],
    "stt_requested": [-600, 5],
    "stt_final": [-500, 90],
    "llm_requested": [95],
    "llm_first_token": [280],
    "tts_requested": [330],
    "tts_first_chunk": [470],
    "eot_committed": [520],
    "first_frame_published": [530],
}
SPOKE_NS = 5_000_000_000
BOX = evidence.Box(versions(Settings()), {"agent.log": b"it spoke\n"})


def traced(first_audio_ms: float | None = 640.0, answer: str = "It is Paris.", later_ms: float = 0.0) -> Turn:
    """With its events; `later_ms` is how much later the model began to write."""
    moved = ("llm_first_token", "tts_requested", "tts_first_chunk", "eot_committed", "first_frame_published")
    events: list[dict[str, Any]] = [
        {"event": name, "turn": 2, "t_ns": SPOKE_NS + round((at_ms + later_ms * (name in moved)) * 1e6)}
        for name, times_ms in EVENTS.items()
        for at_ms in times_ms
    ]
    events.sort(key=lambda event: int(event["t_ns"]))
    changes = {"events": events, "speech_ended_ns": SPOKE_NS}
    return turn(answer, first_audio_ms).model_copy(update=changes)


def good(case: str = "france", of: Turn | None = None, voice: int = 0) -> Judged:
    return spoilt(None, case, of, voice)


def spoilt(fault: str | None, case: str = "spoilt", of: Turn | None = None, voice: int = 0) -> Judged:
    """By a fault in mutate.py, in its middle strength."""
    said = recordings()[voice]
    random = np.random.default_rng(0)
    heard = as_heard(said, random)
    for known in FAULTS:
        if known.name == fault:
            heard = known.apply(heard, known.strengths[1], random)
    asked = Case(name=case, suites=(), lines=(Line(say=(QUESTION,), has=("paris",)),))
    of = of or traced()
    return judged(
        RecordedTurn(f"{case}-1", case, asked, of, ("paris",), SILENCE, pcm(said), pcm(heard), words=of.answer)
    )


def run_of(*turns: Judged) -> Run:
    calls = [Call(one.recorded.case, [one.recorded], Reception(48_000, 0, 0), 0) for one in turns]
    return Run([Dialled(call.case, [call], []) for call in calls], list(turns), [])


def keep(folder: Path, *turns: Judged) -> Path:
    evidence.write(folder, turns, report(run_of(*turns), "a model"), BOX)
    return folder
