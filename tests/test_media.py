"""A robot and an agent that are called off while they enter their room."""

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path

import pytest

from daemons import wire
from daemons.agent.room import CallRoom
from daemons.media import Rooms
from daemons.settings import Settings
from ops.livekit_server import LiveKitServer
from ops.robot import Robot, no_way_back, way_into

pytestmark = pytest.mark.integration

ON_THE_WAY_S = (0.0, 0.01, 0.03)
STANDS_S = 1.0  # a connection that nobody took would by then, and LiveKit's library ends the process 15 s after it
GONE_S = 8.0


async def test_who_is_called_off_on_the_way_into_a_room_is_not_left_in_it(tmp_path: Path) -> None:
    with LiveKitServer(tmp_path) as server:
        settings = Settings(**server.settings)
        rooms = Rooms(settings)
        robots = [Robot(no_way_back) for _ in ON_THE_WAY_S]
        agents = [CallRoom(settings, rooms, room_of(after_s)) for after_s in ON_THE_WAY_S]
        for after_s, robot, agent in zip(ON_THE_WAY_S, robots, agents, strict=True):
            await rooms.create(room_of(after_s))
            await called_off(robot.join(way_into(settings, room_of(after_s))), after_s)
            await robot.leave()
            await called_off(opened(agent), after_s)
        await asyncio.sleep(STANDS_S)
        deadline = time.monotonic() + GONE_S
        for after_s in ON_THE_WAY_S:
            for identity in (wire.CALLER_IDENTITY, wire.AGENT_IDENTITY):
                while await rooms.has(room_of(after_s), identity):
                    assert time.monotonic() < deadline, f"the {identity}, called off after {after_s} s, is in the room"
                    await asyncio.sleep(0.1)
        for agent in agents:
            await agent.close(wire.CallEnded(reason="failed", message=""))
        await rooms.close()


async def called_off(entering: Coroutine[None, None, None], after_s: float) -> None:
    task = asyncio.create_task(entering)
    await asyncio.sleep(after_s)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def room_of(after_s: float) -> str:
    return f"room-{after_s:g}"


async def opened(room: CallRoom) -> None:
    await room.open(
        on_audio=lambda _samples: None,
        on_audible=lambda: None,
        on_caller=lambda _present, _on_purpose: None,
        on_text=lambda _text: None,
        on_link=lambda _up: None,
        on_lost=lambda _why: None,
    )
