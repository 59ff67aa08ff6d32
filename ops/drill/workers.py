"""Workers that die or hang in the middle of a turn: is the call lost, and what does the caller hear meanwhile?"""

import asyncio
import itertools
import os
import signal
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import psutil

from daemons.errors import Unavailable
from ops.caller import Utterance, speech_end_ns, synthesize
from ops.figures import Bound, Report, Summary
from ops.private_box import PrivateBox
from ops.robot import Robot, dial, happened

QUESTION = "Please tell me something about the city of Paris."
AFTERWARDS = "What is the capital of France?"
ROLES = ("stt", "llm", "tts")
FAULTS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
GREETING_S = 30.0
ANSWER_S = 90.0  # a worker that hangs is restarted after 20 to 25 s, and its model loaded again
INTO_THE_QUESTION_S = 1.0
INTO_THE_ANSWER_S = 0.4
SETTLE_S = 1.0
SILENCE_P95_LIMIT_S = 2.0

Phase = Literal["hearing", "thinking", "speaking"]
PHASES: tuple[Phase, ...] = ("hearing", "thinking", "speaking")


class Round(NamedTuple):
    role: str
    fault: str
    phase: Phase


@dataclass(slots=True)
class Taken:
    lost: list[str] = field(default_factory=list)
    unanswered: int = 0
    silence_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    answered_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def rounds_of(count: int) -> list[Round]:
    """Each role, each fault and each phase as often as the others."""
    return [Round(*one) for one in itertools.islice(itertools.cycle(itertools.product(ROLES, FAULTS, PHASES)), count)]


async def drill(rounds: int, *, llm_model: str, on_round: Callable[[int], None]) -> Report:
    """One call for each round, in a box of its own with one worker of each role.

    Raises StepFailed when the box does not come up, or a worker does not come back.
    """
    taken = Taken()
    with PrivateBox(slots=1, llm_model=llm_model) as box:
        questions = [await synthesize(box.settings, words) for words in (QUESTION, AFTERWARDS)]
        for one in rounds_of(rounds):
            try:
                await _round(box, one, questions, taken)
            except (Unavailable, TimeoutError) as error:
                taken.lost.append(f"{one.role} {one.fault} while {one.phase}: {error}")
            for role in ROLES:
                box.wait_ready(role, other_than=0)
            on_round(1)
    return _report(taken, rounds, llm_model)


async def _round(box: PrivateBox, one: Round, questions: list[Utterance], taken: Taken) -> None:
    question, afterwards = questions
    victim = psutil.Process(box.pid(one.role))
    async with dial(box.settings.door_url) as robot:
        await robot.event(happened("reply_heard"), GREETING_S)
        await asyncio.sleep(SETTLE_S)
        saying = asyncio.create_task(robot.say(question.pcm))
        try:
            if one.phase == "hearing":
                await asyncio.sleep(INTO_THE_QUESTION_S)
                os.kill(victim.pid, FAULTS[one.fault])
            began_ns = await saying
            ended_ns = began_ns + speech_end_ns(question.pcm)
            if one.phase != "hearing":
                event = "eot_committed" if one.phase == "thinking" else "first_frame_published"
                await robot.event(happened(event, ended_ns), ANSWER_S)
                await asyncio.sleep(INTO_THE_ANSWER_S if one.phase == "speaking" else 0)
                os.kill(victim.pid, FAULTS[one.fault])
            await _whole_answer(robot, ended_ns, one, taken)
            began_ns = await robot.say(afterwards.pcm)
            await _whole_answer(robot, began_ns + speech_end_ns(afterwards.pcm), one, taken)
        finally:
            saying.cancel()
            if one.fault == "stopped" and victim.is_running():
                victim.resume()


async def _whole_answer(robot: Robot, ended_ns: int, one: Round, taken: Taken) -> None:
    """Hear an answer out, and take what was heard until then. Raises what `Robot.event` raises."""
    first = await robot.event(happened("reply_finished", ended_ns), ANSWER_S)
    heard = await robot.event(happened("reply_heard", ended_ns, turn=first["turn"]), ANSWER_S)
    taken.unanswered += heard["cut_off"] or not heard["text"]
    taken.silence_s[one.fault].append(robot.heard.longest_silence_s(ended_ns, first["t_ns"]))
    audible_ns = robot.heard.audible_ns(ended_ns)
    taken.answered_s[one.fault].append(((audible_ns or first["t_ns"]) - ended_ns) / 1e9)
    await asyncio.sleep(SETTLE_S)


def _report(taken: Taken, rounds: int, llm_model: str) -> Report:
    report = Report("Workers that die or hang in a call", unit="s", facts={"rounds": rounds, "llm": llm_model})
    for fault in FAULTS:
        if values := taken.silence_s[fault]:
            report.samples[f"longest plain silence of a turn, worker {fault}"] = Summary.of(values)
            report.samples[f"end of the question → anything heard, worker {fault}"] = Summary.of(
                taken.answered_s[fault]
            )
    report.counts["answers that came whole"] = sum(map(len, taken.silence_s.values())) - taken.unanswered
    report.counts["calls lost"] = len(taken.lost)
    for number, what in enumerate(taken.lost, 1):
        report.facts[f"lost {number}"] = what
    report.bounds.append(Bound("calls lost", len(taken.lost), 0))
    everything = [value for values in taken.silence_s.values() for value in values]
    longest = Summary.of(everything).p95_or_max if everything else float("nan")
    report.bounds.append(Bound("longest plain silence of a turn, P95", longest, SILENCE_P95_LIMIT_S, "s"))
    return report
