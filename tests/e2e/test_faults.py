"""What breaks between calls, and that the box comes back without a human."""

import asyncio
import os
import shutil
import signal
import time

import aiohttp
import pytest

from daemons.errors import CallboxError
from ops import vllm
from ops.caller import synthesize, talk
from ops.metrics import metrics_at
from ops.private_box import PrivateBox
from ops.programs import STOP_ORDER
from ops.robot import dial

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BACK_S = 10.0


async def answered(box: PrivateBox) -> str:
    spoken = await synthesize(box.settings, "What is the capital of France?")
    async with dial(box.settings.door_url) as robot:
        return (await talk(robot, [spoken])).turns[0].answer


async def next_call_begins(box: PrivateBox, began_s: float) -> float:
    """Dial as a person would, again after a refusal; seconds until the greeting is heard."""
    while True:
        try:
            async with dial(box.settings.door_url) as robot:
                await robot.event(lambda event: event["event"] == "first_frame_published", BACK_S)
                return time.monotonic() - began_s
        except (CallboxError, TimeoutError) as error:
            if time.monotonic() - began_s > 3 * BACK_S:
                raise AssertionError(f"no call for {3 * BACK_S} s: {error}") from error
            await asyncio.sleep(0.5)


async def until_idle(box: PrivateBox) -> bool:
    """Whether the agent lets go of its last call within a few seconds."""
    async with aiohttp.ClientSession() as session:
        for _ in range(50):
            metrics = await metrics_at(session, f"http://127.0.0.1:{box.settings.agent_port + 1}")
            if metrics.get(("callbox_calls", ())) == 0:  # none while the agent starts
                return True
            await asyncio.sleep(0.2)
    return False


@pytest.mark.parametrize("program", ["agent", "tts"])
async def test_after_kill_9_the_next_call_works_by_itself(box: PrivateBox, program: str) -> None:
    pid = box.pid(program)
    os.kill(pid, signal.SIGKILL)
    took_s = await next_call_begins(box, time.monotonic())
    print(f"\nkill -9 of {program} → greeting of the next call: {took_s:.1f} s")
    assert took_s < BACK_S
    assert "paris" in (await answered(box)).lower()
    box.wait_ready(program, other_than=pid)


@pytest.mark.parametrize("program", [name for name in STOP_ORDER if name != vllm.NAME])  # it has tests of its own
def test_a_program_that_is_told_to_end_comes_back(box: PrivateBox, program: str) -> None:
    pid = box.pid(program)
    os.kill(pid, signal.SIGTERM)
    took_s = box.wait_ready(program, other_than=pid)
    print(f"\nkill {program} → ready again: {took_s:.1f} s")
    assert took_s < box.settings.drain_s, "it waited for work that had ended"


async def test_the_box_still_answers_after_all_of_that(box: PrivateBox) -> None:
    await next_call_begins(box, time.monotonic())
    assert "paris" in (await answered(box)).lower()
    assert box.status()["ok"]
    assert await until_idle(box), "the agent still holds a call that has ended"


async def test_up_on_a_running_box_restarts_nothing_and_interrupts_no_call(box: PrivateBox) -> None:
    programs = {one["name"]: one["pid"] for one in box.status()["programs"]}
    async with dial(box.settings.door_url) as robot:
        await robot.event(lambda event: event["event"] == "first_frame_published", 20)
        began_s = time.monotonic()
        await asyncio.to_thread(box.callbox, "up")
        print(f"\nup on a running box: {time.monotonic() - began_s:.1f} s")
        await robot.event(lambda event: event["event"] == "reply_heard", 20)
        assert robot.ended is None
    assert {one["name"]: one["pid"] for one in box.status()["programs"]} == programs


async def test_restart_of_redis_ends_no_call(box: PrivateBox) -> None:
    """Append-only, always synced: what was held before is held after."""
    spoken = await synthesize(box.settings, "What is the capital of France?")
    async with dial(box.settings.door_url) as robot:
        await robot.event(lambda event: event["event"] == "reply_heard", 20)
        pid = box.pid("redis")
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(box.wait_ready, "redis", pid)
        await asyncio.sleep(4)  # a renewal and a heartbeat go by
        assert robot.ended is None
        report = await talk(robot, [spoken])
        assert "paris" in report.turns[0].answer.lower()


async def test_loss_of_redis_data_ends_no_call(box: PrivateBox) -> None:
    """The agent gives back what it holds before anyone else is given it."""
    spoken = await synthesize(box.settings, "What is the capital of France?")
    async with dial(box.settings.door_url) as robot:
        await robot.event(lambda event: event["event"] == "reply_heard", 20)
        box.supervisorctl("stop", "redis")
        shutil.rmtree(box.var_dir / "redis")
        (box.var_dir / "redis").mkdir()
        box.supervisorctl("start", "redis")
        await asyncio.sleep(9)  # workers register and say that they are ready again, the call is adopted
        assert robot.ended is None
        assert [lease["call"] for lease in box.status()["leases"]] == [robot.call_id] * 4
        report = await talk(robot, [spoken])
        assert "paris" in report.turns[0].answer.lower()
    assert await until_idle(box)
    assert "paris" in (await answered(box)).lower(), "and the next one is taken as ever"
