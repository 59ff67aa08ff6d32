"""Short calls of the kinds that there are: heard out, interrupted, left, and silent."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum

from daemons.errors import AtCapacity, Unavailable, in_words
from ops.bench.barge_in import STORY
from ops.caller import GREETING_TIMEOUT_S, REPLY_TIMEOUT_S, Utterance, ask, speech_end_ns, synthesize, talk
from ops.private_box import PrivateBox
from ops.robot import Robot, dial, happened

QUESTION = "What is the capital of France?"
INTERRUPTION = "Stop, please. What is the capital of Italy?"
INTO_THE_ANSWER_S = 0.8
HUNG_UP_S = 60.0  # by the box, on who says nothing


class Kind(StrEnum):
    ASKS = "asks and hears the answer out"
    BARGES_IN = "interrupts the answer by another question"
    LEAVES = "leaves in the middle of the answer"
    IS_SILENT = "never speaks, until the box hangs up"


CYCLE = (Kind.ASKS, Kind.BARGES_IN, Kind.ASKS, Kind.LEAVES, Kind.ASKS, Kind.IS_SILENT, Kind.ASKS, Kind.ASKS)


@dataclass(frozen=True, slots=True)
class Lines:
    """What the callers say."""

    question: Utterance
    story: Utterance
    interruption: Utterance

    @classmethod
    async def of(cls, box: PrivateBox) -> "Lines":
        return cls(*[await synthesize(box.settings, words) for words in (QUESTION, STORY, INTERRUPTION)])


@dataclass(frozen=True, slots=True)
class Outcome:
    """`wrong` says what, "" when all went as it should; `response_ms`: end of the question → first audio heard."""

    kind: Kind
    wrong: str = ""
    response_ms: float | None = None


async def call(door_url: str, kind: Kind, lines: Lines) -> Outcome:
    """One call, from the dial to the hang-up. Never raises for what the box does."""
    try:
        async with dial(door_url) as robot:
            match kind:
                case Kind.ASKS:
                    return await _ask(robot, lines)
                case Kind.BARGES_IN:
                    return await _barge_in(robot, lines)
                case Kind.LEAVES:
                    await _greeted(robot)
                    await ask(robot, lines.story)
                    await asyncio.sleep(INTO_THE_ANSWER_S)
                    return Outcome(kind)
                case Kind.IS_SILENT:
                    await _greeted(robot)
                    reason = (await robot.until_ended(HUNG_UP_S)).reason
                    return Outcome(kind, "" if reason == "idle" else f"the box hung up: {reason}")
    except (AtCapacity, Unavailable, TimeoutError) as error:
        return Outcome(kind, in_words(error))


async def _greeted(robot: Robot) -> None:
    await robot.event(happened("reply_heard"), GREETING_TIMEOUT_S)


async def _ask(robot: Robot, lines: Lines) -> Outcome:
    [turn] = (await talk(robot, [lines.question])).turns
    if turn.cut_off or not turn.answer or turn.eot_to_first_audio_ms is None:
        return Outcome(Kind.ASKS, f"understood {turn.understood!r}, answered {turn.answer!r}, cut off: {turn.cut_off}")
    return Outcome(Kind.ASKS, response_ms=turn.eot_to_first_audio_ms)


async def _barge_in(robot: Robot, lines: Lines) -> Outcome:
    await _greeted(robot)
    asked_ns = (await ask(robot, lines.story)).answered_ns
    await asyncio.sleep(INTO_THE_ANSWER_S)
    ended_ns = await robot.say(lines.interruption.pcm) + speech_end_ns(lines.interruption.pcm)
    await robot.event(happened("cancel_requested", asked_ns, why="barge_in"), REPLY_TIMEOUT_S)
    answer = await robot.event(happened("first_frame_published", ended_ns), REPLY_TIMEOUT_S)
    heard = await robot.event(happened("reply_heard", turn=answer["turn"]), REPLY_TIMEOUT_S)
    return Outcome(Kind.BARGES_IN, "" if heard["text"] else "no answer to the interruption")
