"""The media server dies, hangs or is away for a while in mid-call: the call goes on."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ops.caller import Utterance, synthesize, talk
from ops.private_box import PrivateBox
from ops.robot import Robot, dial, happened
from tests.e2e.test_call import transcribe
from tests.e2e.test_faults import until_idle
from tests.speech_samples import word_error_rate

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    # LiveKit's library drops the handle of a track that was published anew a second time.
    pytest.mark.filterwarnings(r"ignore:Exception ignored in. <function FfiHandle.__del__"),
]

AWAY_S = 15.0
BACK_S = 40.0


@pytest.fixture
async def question(box: PrivateBox) -> Utterance:
    return await synthesize(box.settings, "What is the capital of France?")


@asynccontextmanager
async def call(box: PrivateBox) -> AsyncIterator[Robot]:
    async with dial(box.settings.door_url) as robot:
        await robot.event(happened("reply_heard"), 20)
        yield robot
        assert robot.ended is None
    assert await until_idle(box)


async def answered(robot: Robot, question: Utterance) -> str:
    return (await talk(robot, [question])).turns[0].answer.lower()


async def back(robot: Robot, away_ns: int) -> float:
    """Seconds that the caller was without the agent."""
    await robot.event(happened("caller_joined", after_ns=away_ns), BACK_S)
    return (time.monotonic_ns() - away_ns) / 1e9


async def test_a_media_server_that_dies_in_mid_answer_is_waited_for(box: PrivateBox) -> None:
    question = await synthesize(box.settings, "Can you recommend something for dinner?")
    async with call(box) as robot:
        asked_ns = await robot.say(question.pcm)
        begun = await robot.event(happened("first_frame_published", after_ns=asked_ns), 20)
        await asyncio.sleep(0.5)
        os.kill(box.pid("livekit"), signal.SIGKILL)
        away_s = await back(robot, time.monotonic_ns())
        answer = await robot.event(happened("reply_heard", turn=begun["turn"]), 30)
        await asyncio.sleep(0.5)
        heard = await transcribe(box, robot.heard.between(begun["t_ns"], time.monotonic_ns()))
        print(f"\nkilled; the caller was back after {away_s:.1f} s; {answer['text']!r}")
        assert not answer["cut_off"]
        assert word_error_rate(answer["text"], heard) <= 0.5  # what was on its way when the server died is gone
        print(f"heard {heard!r}")


async def test_a_media_server_that_is_away_for_a_while_ends_no_call(box: PrivateBox, question: Utterance) -> None:
    async with call(box) as robot:
        away_ns = time.monotonic_ns()
        await asyncio.to_thread(box.supervisorctl, "stop", "livekit")
        await asyncio.sleep(AWAY_S - (time.monotonic_ns() - away_ns) / 1e9)
        await asyncio.to_thread(box.supervisorctl, "start", "livekit")
        print(f"\naway for {AWAY_S:g} s; the caller was back after {await back(robot, away_ns):.1f} s")
        assert "paris" in await answered(robot, question)


async def test_a_media_server_that_hangs_for_a_while_ends_no_call(box: PrivateBox, question: Utterance) -> None:
    async with call(box) as robot:
        pid = box.pid("livekit")
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(AWAY_S)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert "paris" in await answered(robot, question)
