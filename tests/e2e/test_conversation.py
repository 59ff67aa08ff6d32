"""One call in which all happens that happens in calls; on a clock of their own these are tests/agent/test_scenes.py."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from ops.bench.barge_in import cough
from ops.caller import synthesize
from ops.private_box import PrivateBox
from ops.robot import Robot, dial, happened

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

IDLE_S = 8.0
SOON_S = 30.0
PAUSE_S = 0.4
LISTENS_S = 1.0
STORY = "Please tell me a long story about a dog and a cat."
INTERRUPTIONS = {
    "Stop, please. What is the capital of France?": "paris",
    "Wait a moment. What is the capital of Italy?": "rome",
}
LINES = ("My name is", "Maria, and I live by the sea.", STORY, *INTERRUPTIONS, "Okay.")


@pytest.fixture(scope="module")
def waiting_box() -> Iterator[PrivateBox]:
    with PrivateBox(slots=1, idle_s=IDLE_S) as box:
        box.write_persona(max_sentences=4)
        yield box


def events(robot: Robot, name: str, after_ns: int) -> list[dict[str, Any]]:
    return [event for event in robot.events if event["event"] == name and event["t_ns"] > after_ns]


async def test_a_whole_conversation(waiting_box: PrivateBox) -> None:
    spoken = {words: (await synthesize(waiting_box.settings, words)).pcm for words in LINES}

    async with dial(waiting_box.settings.door_url) as robot:

        async def story() -> int:
            """Ask for it, and hear a little of it; returns when it was begun to be asked for, in ns."""
            asked_ns = await robot.say(spoken[STORY])
            await robot.event(happened("first_frame_published", asked_ns), SOON_S)
            await asyncio.sleep(LISTENS_S)
            return asked_ns

        await robot.event(happened("reply_heard"), SOON_S)

        # a pause in the middle of a sentence does not end the turn
        began_ns = await robot.say(spoken["My name is"])
        await asyncio.sleep(PAUSE_S)
        await robot.say(spoken["Maria, and I live by the sea."])
        await robot.event(happened("reply_heard", began_ns), SOON_S)
        assert len(events(robot, "eot_committed", began_ns)) == 1
        understood = events(robot, "stt_final", began_ns)[-1]["text"].lower()
        assert "name" in understood
        assert "sea" in understood

        # two interruptions, each of them answered
        for interruption, answer in INTERRUPTIONS.items():
            await story()
            interrupted_ns = await robot.say(spoken[interruption])
            await robot.event(happened("barge_in", interrupted_ns), SOON_S)
            heard = await robot.event(happened("reply_heard", interrupted_ns, cut_off=False), SOON_S)
            assert answer in heard["text"].lower()

        # neither a cough nor an "okay" ends the answer
        asked_ns = await story()
        await robot.say(cough(0))
        okay_ns = await robot.say(spoken["Okay."])
        heard = await robot.event(happened("reply_heard", asked_ns), SOON_S)
        assert heard["t_ns"] > okay_ns
        assert not heard["cut_off"]
        assert not events(robot, "barge_in", asked_ns)

        # silence is asked about once, then the call ends with a goodbye
        ended = await robot.until_ended(2 * IDLE_S + SOON_S)
        assert ended.reason == "idle"
        last_words = [event["text"] for event in events(robot, "reply_heard", heard["t_ns"])]
        assert last_words == ["Are you still there?", "I will hang up now. Goodbye!"]
