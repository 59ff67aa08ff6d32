"""The verdict on turns whose recordings are known."""

import numpy as np
import pytest

from daemons.audio import Pcm, to_int16
from ops.caller import Turn
from ops.lab.calls import RecordedTurn
from ops.lab.cases import Case
from ops.lab.run import Judged, judge, report
from ops.lab.self_test import as_heard
from ops.lab.signals import RATE_HZ, Signal
from tests.lab.recordings import recordings
from tests.speech_samples import needs_librivox

pytestmark = needs_librivox

CASE = Case(name="france", say=("What is the capital of France?",), has=(("paris",),))


def pcm(signal: Signal) -> Pcm:
    return Pcm(to_int16(signal.astype(np.float32)), RATE_HZ)


def turn(answer: str = "It is Paris.", first_audio_ms: float | None = 700.0) -> Turn:
    return Turn(
        generation=2,
        said=CASE.say[0],
        understood=CASE.say[0],
        answer=answer,
        cut_off=False,
        eot_to_first_audio_ms=first_audio_ms,
        endpointing_ms=200,
        stt_ms=80,
        llm_ttft_ms=200,
        tts_ttfa_ms=200,
        tts_first_to_publish_ms=5,
        speech_ended_ns=0,
        answer_from_ns=0,
        answer_to_ns=1,
        events=[],
    )


def judged(said: Signal | None, heard: Signal, of: Turn) -> Judged:
    return judge(RecordedTurn(CASE, 1, of, None if said is None else pcm(said), pcm(heard)))


def missed(*turns: Judged) -> set[str]:
    return {bound.name for bound in report(turns, "a model").bounds if not bound.held}


@pytest.fixture
def said() -> Signal:
    return recordings()[0]


@pytest.fixture
def heard(said: Signal) -> Signal:
    return as_heard(said, np.random.default_rng(0))


def test_a_good_turn_passes_every_gate(said: Signal, heard: Signal) -> None:
    assert missed(judged(said, heard, turn())) == set()


def test_one_bad_turn_fails_the_run(said: Signal, heard: Signal) -> None:
    good = judged(said, heard, turn())
    holed = heard.copy()
    holed[2 * RATE_HZ : 3 * RATE_HZ] = 0
    assert missed(good, judged(said, holed, turn())) == {"longest gap, worst turn", "dropout, worst turn"}
    assert missed(good, judged(said, heard, turn("I do not know."))) == {"answers without the word that they must have"}
    late = "end of speech → first audio heard, P95"
    assert missed(good, judged(said, heard, turn(first_audio_ms=1600))) == {late}


def test_what_cannot_be_measured_has_not_passed(said: Signal, heard: Signal) -> None:
    unkept = judged(None, heard, turn())
    assert {"answers found in the recording", "answers as made by the speech worker"} <= missed(unkept)
    unheard = judged(said, np.zeros_like(heard), turn(first_audio_ms=None))
    found = missed(unheard)
    assert {"answers found in the recording", "end of speech → first audio heard, P95"} <= found
    assert {"longest gap, worst turn", "mel distance, P95"} <= found
