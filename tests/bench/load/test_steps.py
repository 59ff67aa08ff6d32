"""Which numbers of calls are tried, and when a step has failed."""

import dataclasses

import numpy as np
import pytest

from daemons.audio import TTS_RATE_HZ, Pcm, level_dbfs
from ops.bench.load.report import report
from ops.bench.load.robots import Answer, longest_gap_ms
from ops.bench.load.run import Box, Climb, without_pauses
from ops.bench.load.steps import Spent, Step, next_calls
from ops.robot import RATE_HZ, Heard
from tests.bench.test_waves import voice

SPENT = Spent({"agent": 3.0, "livekit": 2.0, "stt": 1.0, "llm": 1.0, "tts": 1.0, "redis": 0.5}, 2.0, 4.0, 0.5)


def answers(count: int = 20, response_ms: float | None = 500, gap_ms: float = 0) -> list[Answer]:
    return [Answer(asked_ns=0, text="Paris.", response_ms=response_ms, gap_ms=gap_ms) for _ in range(count)]


def tried(carries: int, most: int) -> list[int]:
    carried, too_many, calls = 0, None, []
    while (now := next_calls(carried, too_many, most)) is not None:
        calls.append(now)
        if now <= carries:
            carried = now
        else:
            too_many = now
    assert carried == min(carries, most), "the largest number is found"
    return calls


@pytest.mark.parametrize("carries", range(18))
def test_the_largest_number_is_found_in_few_steps(carries: int) -> None:
    assert len(tried(carries, 16)) <= 9


def test_steps_double_and_then_halve_what_is_between() -> None:
    assert tried(11, 64) == [1, 2, 4, 8, 16, 12, 10, 11]
    assert tried(99, 12) == [1, 2, 4, 8, 12]
    assert tried(0, 16) == [1]


def test_a_step_that_keeps_every_gate_is_carried() -> None:
    assert Step(2, answers(), [], SPENT).gave_way() == []


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Step(2, answers(), ["the room is gone"], SPENT), "1 of 2 calls lost, the first: the room is gone"),
        (Step(2, [], [], SPENT), "no call was answered"),
        (Step(2, answers(response_ms=1600), [], SPENT), "answers after 1600 ms (P95)"),
        (Step(2, answers(response_ms=None), [], SPENT), "answers after inf ms (P95)"),
        (Step(2, [*answers(), *answers(1, gap_ms=80)], [], SPENT), "a gap of 80 ms inside an answer"),
    ],
)
def test_every_gate_can_be_missed(step: Step, said: str) -> None:
    assert step.gave_way() == [said]


def test_a_pause_of_the_words_is_no_gap() -> None:
    step = Step(1, answers(gap_ms=200), [], SPENT)
    assert step.gave_way() != []
    assert dataclasses.replace(step, pauses_ms={"Paris.": 150.0}).gave_way() == []


def test_a_report_names_what_gave_way_first() -> None:
    climb = Climb([Step(calls, answers(gap_ms=20 * calls), [], SPENT) for calls in (1, 2, 4, 3)])
    found = report({Box.AGENT_ALONE: climb}, 30, "a model")
    assert found.counts["calls carried by the agent alone"] == 3
    assert found.facts["the agent alone gave way at 4"] == "a gap of 80 ms inside an answer"
    assert found.counts["calls that would fill a core with the agent's event loop"] == 30
    [rows] = found.tables.values()
    assert [(row["calls"], row["carried"]) for row in rows] == [(1, "yes"), (2, "yes"), (3, "yes"), (4, "no")]
    assert found.ok
    assert not report({Box.WHOLE: Climb([Step(1, [], [], SPENT)])}, 30, "a model").ok


def test_the_longest_gap_lies_inside_what_is_heard() -> None:
    heard, spoken = Heard(), Pcm(voice(0.5), TTS_RATE_HZ).resampled(RATE_HZ).samples
    silence = np.zeros(RATE_HZ // 10, np.int16)
    parts = [silence, silence, spoken, silence, spoken, silence, silence]
    heard.add(np.concatenate(parts), at_ns=round(sum(map(len, parts)) / RATE_HZ * 1e9))
    assert longest_gap_ms(heard, 0, round(2e9)) == pytest.approx(100, abs=10)
    assert longest_gap_ms(Heard(), 0, round(2e9)) == 0


def test_an_answer_without_pauses_is_audible_throughout() -> None:
    spoken = Pcm(np.concatenate([voice(0.5), np.zeros(TTS_RATE_HZ, np.int16), voice(0.5)]), TTS_RATE_HZ)
    kept = without_pauses(spoken)
    assert 0.9 <= kept.duration_ms / 1000 <= 1.05
    step = TTS_RATE_HZ // 100
    assert all(level_dbfs(kept.samples[at : at + step]) > -50 for at in range(0, len(kept.samples), step))
