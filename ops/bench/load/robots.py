"""Robots of one process: `python -m ops.bench.load.robots DOOR_URL WAV`.

It says "ready", is given a `Plan` as a line on stdin, carries it out and says what came of each call: a line of
`[CallTaken, …]`.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel, TypeAdapter

from daemons.audio import Pcm, read_wav
from daemons.errors import AtCapacity, Unavailable, in_words
from ops.bench.load.scripted import QUESTION
from ops.caller import Utterance, talk
from ops.robot import Heard, dial

READY = "ready"
LONGEST_PAUSE_S = 2.0  # before a question


class Plan(BaseModel):
    """When each call of this process is dialled, and until when all of them ask; CLOCK_MONOTONIC, ns."""

    dial_ns: list[int]
    until_ns: int


class Answer(BaseModel):
    """`gap_ms`: the longest silence inside it; `response_ms`: None when nothing of it was heard."""

    asked_ns: int
    text: str
    response_ms: float | None
    gap_ms: float


class CallTaken(BaseModel):
    """`lost` says why the call did not last, "" for one that did."""

    answers: list[Answer] = []
    lost: str = ""


taken: TypeAdapter[list[CallTaken]] = TypeAdapter(list[CallTaken])


async def calls(door_url: str, question: Pcm, plan: Plan) -> list[CallTaken]:
    return await asyncio.gather(*(_call(door_url, question, at_ns, plan.until_ns) for at_ns in plan.dial_ns))


async def _call(door_url: str, question: Pcm, dial_ns: int, until_ns: int) -> CallTaken:
    await asyncio.sleep((dial_ns - time.monotonic_ns()) / 1e9)
    try:
        async with dial(door_url) as robot:
            turns = (await talk(robot, _again_and_again(question, until_ns, seed=dial_ns))).turns
    except (AtCapacity, Unavailable, TimeoutError) as error:
        return CallTaken(lost=in_words(error))
    return CallTaken(
        answers=[
            Answer(
                asked_ns=turn.speech_ended_ns,
                text=turn.answer,
                response_ms=turn.eot_to_first_audio_ms,
                gap_ms=longest_gap_ms(robot.heard, turn.answer_from_ns, turn.answer_to_ns),
            )
            for turn in turns
        ]
    )


def _again_and_again(question: Pcm, until_ns: int, seed: int) -> Iterator[Utterance]:
    """After a pause that is drawn each time, or calls that began together would all ask at the same moments."""
    dice = np.random.default_rng(seed)
    while time.monotonic_ns() < until_ns:
        pause = np.zeros(round(dice.uniform(0, LONGEST_PAUSE_S) * question.rate_hz), np.int16)
        spoken = np.concatenate([pause, question.samples])
        yield Utterance(words=QUESTION, pcm=Pcm(spoken, question.rate_hz))


def longest_gap_ms(heard: Heard, from_ns: int, to_ns: int) -> float:
    """Between the first and the last that is audible."""
    first_ns = heard.audible_ns(from_ns)
    if first_ns is None or first_ns >= to_ns:
        return 0.0
    return heard.longest_silence_s(first_ns, heard.silent_ns(first_ns, to_ns)) * 1000


def main(door_url: str, wav: Path) -> None:
    question = read_wav(wav)
    print(READY, flush=True)
    plan = Plan.model_validate_json(sys.stdin.readline())
    came = asyncio.run(calls(door_url, question, plan))
    print(json.dumps([one.model_dump() for one in came]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
