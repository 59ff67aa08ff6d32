"""What a caller said is said again as it was, and when it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemons.audio import Pcm
from daemons.errors import BadRequest
from ops.lab import evidence
from ops.lab.calls import Interruption
from ops.lab.cases import Played
from ops.lab.replay import replayed
from ops.lab.run import Judged
from ops.robot import RATE_HZ
from tests.lab.kept_runs import good, keep
from tests.speech_samples import needs_librivox

pytestmark = needs_librivox


def tone(hz: float) -> Pcm:
    return Pcm((3000 * np.sin(2 * np.pi * hz * np.arange(RATE_HZ) / RATE_HZ)).astype(np.int16), RATE_HZ)


def asks(call: str, number: int, sound: Pcm, *, over: Pcm | None = None, yields: bool = False) -> Judged:
    one = good(call)
    interruption = None
    if over is not None:
        interruption = Interruption(over, 1.5, yields, True, yields, held=True, silence_ms=200.0, cancel_ms=0.1)
    changed = replace(one.recorded, name=f"{call}-{number}", asked=sound, interruption=interruption)
    return replace(one, recorded=changed)


@pytest.fixture
def run(tmp_path: Path) -> evidence.Run:
    turns = [
        asks("story", 1, tone(200), over=tone(300), yields=True),
        asks("story", 2, tone(300)),
        asks("story", 3, tone(400), over=tone(500), yields=False),
        asks("story", 4, tone(600)),
        asks("other", 1, tone(700)),
    ]
    return evidence.read(keep(tmp_path / "run", *turns))


def test_each_line_is_said_as_it_was(run: evidence.Run) -> None:
    voice = replayed(run, "story")
    lines = voice.case.lines
    assert [line.say for line in lines] == [(Played(sound=f"asked-{at}"),) for at in (0, 2, 3)]
    for line, hz in zip(lines, (200, 400, 600), strict=True):
        assert np.array_equal(voice.says(line.say).pcm.samples, tone(hz).samples)
    first, second, third = (line.over for line in lines)
    assert first is not None
    assert second is not None
    assert (first.at_s, first.yields, first.has) == (1.5, True, ("paris",))
    assert (second.at_s, second.yields) == (1.5, False)
    assert np.array_equal(voice.says(second.say).pcm.samples, tone(500).samples)
    assert third is None


def test_a_call_that_is_not_there_is_refused_with_those_that_are(run: evidence.Run) -> None:
    with pytest.raises(BadRequest, match="no call song; it has story, other"):
        replayed(run, "song")
