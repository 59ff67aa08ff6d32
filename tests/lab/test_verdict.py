"""The verdict on turns whose recordings are known."""

import numpy as np
import pytest

from daemons.audio import Pcm, to_int16
from ops.caller import Turn
from ops.lab.calls import Call, Dialled, Interruption, RecordedTurn
from ops.lab.cases import Case, Line
from ops.lab.run import Run, judge
from ops.lab.self_test import as_heard
from ops.lab.signals import RATE_HZ, Signal
from ops.lab.verdict import report
from ops.robot import Reception
from tests.lab.recordings import recordings
from tests.speech_samples import needs_librivox

pytestmark = needs_librivox

SILENCE = Pcm(np.zeros(480, np.int16), RATE_HZ)
QUESTION = "What is the capital of France?"
CASE = Case(name="france", suites=(), lines=(Line(say=(QUESTION,), has=("paris",)),))


def pcm(signal: Signal) -> Pcm:
    return Pcm(to_int16(signal.astype(np.float32)), RATE_HZ)


def turn(
    answer: str = "It is Paris.",
    first_audio_ms: float | None = 700.0,
    *,
    cut_off: bool = False,
    interrupted: bool = False,
) -> Turn:
    return Turn(
        generation=2,
        said=QUESTION,
        understood=QUESTION,
        answer=answer,
        cut_off=cut_off,
        interrupted=interrupted,
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


def recorded(said: Signal | None, heard: Signal, of: Turn, interruption: Interruption | None = None) -> RecordedTurn:
    made = None if said is None else pcm(said)
    return RecordedTurn("france-1", "france", CASE, of, ("paris",), SILENCE, made, pcm(heard), interruption)


def missed(*turns: RecordedTurn, spoken_unasked: int = 0, failures: tuple[str, ...] = ()) -> set[str]:
    call = Call(CASE, list(turns), Reception(48_000, 0, 0), spoken_unasked)
    return missed_by(judge([Dialled(CASE, [call], list(failures))]))


def missed_by(run: Run) -> set[str]:
    return {bound.name for bound in report(run, "a model").bounds if not bound.held}


@pytest.fixture
def said() -> Signal:
    return recordings()[0]


@pytest.fixture
def heard(said: Signal) -> Signal:
    return as_heard(said, np.random.default_rng(0))


def test_a_good_turn_passes_every_gate(said: Signal, heard: Signal) -> None:
    assert missed(recorded(said, heard, turn())) == set()


def test_one_bad_turn_fails_the_run(said: Signal, heard: Signal) -> None:
    good = recorded(said, heard, turn())
    holed = heard.copy()
    holed[2 * RATE_HZ : 3 * RATE_HZ] = 0
    assert missed(good, recorded(said, holed, turn())) == {"longest gap, worst turn", "dropout, worst turn"}
    assert missed(good, recorded(said, heard, turn("I do not know."))) == {
        "answers without the word that they must have"
    }
    late = "end of speech → first audio heard, P95"
    assert missed(good, recorded(said, heard, turn(first_audio_ms=1600))) == {late}


def test_what_cannot_be_measured_has_not_passed(said: Signal, heard: Signal) -> None:
    unkept = recorded(None, heard, turn())
    assert {"answers found in the recording", "answers as made by the speech worker"} <= missed(unkept)
    unheard = recorded(said, np.zeros_like(heard), turn(first_audio_ms=None))
    found = missed(unheard)
    assert {"answers found in the recording", "end of speech → first audio heard, P95"} <= found
    assert {"longest gap, worst turn", "mel distance, P95"} <= found


def test_who_is_cut_off_or_spoken_to_in_silence_is_told(said: Signal, heard: Signal) -> None:
    assert missed(recorded(said, heard, turn(cut_off=True))) == {"callers cut off in mid-sentence"}
    assert missed(recorded(said, heard, turn()), spoken_unasked=1) == {"times spoken to in their silence"}


def interruption(*, wanted: bool, ended: bool, in_time: bool = True, silence_ms: float | None = None) -> Interruption:
    return Interruption(SILENCE, 1.0, wanted, in_time, ended, held=True, silence_ms=silence_ms, cancel_ms=None)


def test_an_interruption_ends_the_answer_and_a_cough_does_not(said: Signal, heard: Signal) -> None:
    def missed_with(found: Interruption) -> set[str]:
        return missed(recorded(said, heard, turn(interrupted=found.ended), found))

    assert missed_with(interruption(wanted=True, ended=True, silence_ms=300)) == set()
    assert missed_with(interruption(wanted=False, ended=False)) == set()
    assert missed_with(interruption(wanted=False, ended=True)) == {"answers ended by a cough or an okay"}
    late = {"interruption → silence heard, longest"}
    assert missed_with(interruption(wanted=True, ended=True, silence_ms=2100)) == late
    assert missed_with(interruption(wanted=True, ended=False)) == {"interruptions that did not end the answer", *late}
    assert missed_with(interruption(wanted=False, ended=False, in_time=False)) == {
        "sounds that came when the answer was over"
    }


def test_a_case_that_broke_twice_fails_the_run_and_one_that_broke_once_is_counted(said: Signal, heard: Signal) -> None:
    good = Call(CASE, [recorded(said, heard, turn())], Reception(48_000, 0, 0), 0)
    again = judge([Dialled(CASE, [good], ["no answer"])])
    assert missed_by(again) == set()
    assert report(again, "a model").counts["calls tried again"] == 1
    assert missed_by(judge([Dialled(CASE, [good], []), Dialled(CASE, [], ["no answer", "no answer"])])) == {
        "cases without a call"
    }
