"""Every way in which a call ends: the caller is told why in words, and nothing of it is left."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from daemons import wire
from daemons.registry import CallState, connect
from ops.private_box import PrivateBox
from ops.robot import Robot, dial
from tests.e2e.test_faults import until_idle

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

IDLE_S = 4.0
LONGEST_S = 20.0
DRAIN_S = 3.0
REPLACE_S = 5.0


@pytest.fixture(scope="module")
def impatient() -> Iterator[PrivateBox]:
    """A box with short limits and the small model."""
    limits: dict[str, Any] = {"idle_s": IDLE_S, "call_max_s": LONGEST_S, "drain_s": DRAIN_S, "replace_s": REPLACE_S}
    with PrivateBox(llm_model="smollm2-135m", slots=1, **limits) as box:
        yield box


@asynccontextmanager
async def call(box: PrivateBox) -> AsyncIterator[Robot]:
    """A call whose greeting has begun; afterwards the agent is idle and the registry knows nothing of it."""
    async with dial(box.settings.door_url, patience_s=30) as robot:
        await robot.event(lambda event: event["event"] == "first_frame_published", 20)
        yield robot
    await logged(box, f"{robot.call_id} ended: ")
    registry = connect(box.settings.redis)
    try:
        for _ in range(100):  # its last words come before its lease is given back
            if (await registry.lookup(robot.call_id)).state is CallState.NONE:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError(f"the registry still knows {robot.call_id}")
    finally:
        await registry.close()
    assert await until_idle(box)


async def logged(box: PrivateBox, words: str, timeout_s: float = 10) -> None:
    for _ in range(round(timeout_s / 0.1)):
        if words in box.log("agent"):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"the agent did not log {words!r} within {timeout_s} s")


async def ended(robot: Robot, timeout_s: float) -> wire.CallEnded:
    for _ in range(round(timeout_s / 0.1)):
        if robot.ended is not None:
            return robot.ended
        await asyncio.sleep(0.1)
    raise AssertionError(f"the call went on for {timeout_s} s")


async def test_hanging_up_ends_it_at_once(impatient: PrivateBox) -> None:
    async with call(impatient) as robot:
        pass
    await logged(impatient, f"{robot.call_id} ended: caller_left")


async def test_silence_ends_it(impatient: PrivateBox) -> None:
    async with call(impatient) as robot:
        reason = await ended(robot, IDLE_S + 10)
        assert (reason.reason, reason.message) == ("idle", "The call ended because nobody spoke for a while.")


async def test_the_longest_call_ends(impatient: PrivateBox) -> None:
    async with call(impatient) as robot:
        chatter = asyncio.create_task(keep_typing(robot))
        reason = await ended(robot, LONGEST_S + 10)
        chatter.cancel()
        assert reason.reason == "longest_call"


async def keep_typing(robot: Robot) -> None:
    while True:
        await robot.write("Hello?")
        await asyncio.sleep(2)


async def test_an_agent_that_stops_says_so_after_its_patience(impatient: PrivateBox) -> None:
    async with call(impatient) as robot:
        pid = impatient.pid("agent")
        os.kill(pid, signal.SIGTERM)
        chatter = asyncio.create_task(keep_typing(robot))
        reason = await ended(robot, DRAIN_S + 5)
        chatter.cancel()
        assert reason.reason == "agent_stopping"
        assert "restarted" in reason.message
        await asyncio.to_thread(impatient.wait_ready, "agent", pid)


async def test_a_registry_that_stays_away_ends_it_before_the_lease_can_be_anothers(impatient: PrivateBox) -> None:
    async with dial(impatient.settings.door_url, patience_s=30) as robot:
        await robot.event(lambda event: event["event"] == "first_frame_published", 20)
        chatter = asyncio.create_task(keep_typing(robot))
        redis = impatient.pid("redis")
        os.kill(redis, signal.SIGSTOP)
        try:
            reason = await ended(robot, 15)
        finally:
            os.kill(redis, signal.SIGCONT)
            chatter.cancel()
        assert reason.reason == "registry_lost"
    assert await until_idle(impatient)


async def test_a_caller_whose_page_vanishes_frees_the_slot(impatient: PrivateBox) -> None:
    """No hang-up reaches the box: the next caller waits for the grace of a reload, not longer."""
    lost: asyncio.Future[Robot] = asyncio.get_running_loop().create_future()

    async def vanish() -> None:
        async with dial(impatient.settings.door_url, patience_s=30) as robot:
            await robot.event(lambda event: event["event"] == "first_frame_published", 20)
            await robot.leave()
            lost.set_result(robot)
            await asyncio.sleep(60)

    vanishing = asyncio.create_task(vanish())
    await asyncio.wait_for(asyncio.shield(lost), 40)
    try:
        async with call(impatient) as robot:
            assert robot.ended is None
    finally:
        vanishing.cancel()
        await asyncio.gather(vanishing, return_exceptions=True)


async def test_a_worker_that_cannot_be_replaced_ends_it_in_words(impatient: PrivateBox) -> None:
    try:
        async with call(impatient) as robot:
            await robot.event(lambda event: event["event"] == "reply_heard", 20)
            await asyncio.to_thread(impatient.supervisorctl, "stop", "tts")
            await robot.write("Are you still there?")
            reason = await ended(robot, 30)
            assert reason.reason == "worker_lost"
            assert "could not be replaced" in reason.message
    finally:
        impatient.supervisorctl("start", "tts")
        impatient.wait_ready("tts", other_than=0)


async def test_a_caller_who_never_joins_frees_the_slot(impatient: PrivateBox) -> None:
    url = f"{impatient.settings.door_url}/api/calls"
    async with aiohttp.ClientSession() as session, session.post(url, json={}) as response:
        granted = wire.CallGranted.model_validate_json(await response.text())
    await logged(impatient, f"{granted.call_id} ended: caller_absent", timeout_s=30)
    assert await until_idle(impatient)
