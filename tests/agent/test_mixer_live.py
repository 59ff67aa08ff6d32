"""Ambience through a LiveKit server, as the caller hears it: voices come, are held and cancelled over it."""

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from daemons import wire
from daemons.agent.mixer import Mixer, Sound
from daemons.agent.playout import Playout
from daemons.agent.room import CallRoom
from daemons.audio import TTS_RATE_HZ, level_dbfs
from daemons.clock import SystemClock
from daemons.media import Rooms
from daemons.settings import Settings
from ops.drill.mixer import ROOM, join_both
from ops.livekit_server import LiveKitServer
from ops.robot import Robot, no_way_back

pytestmark = pytest.mark.e2e  # heard in real time

AMBIENCE_DBFS = -34.0
VOICE_DBFS = -15.0
SETTLE_S = 2.0
GAPS = 0.07  # of the time: a busy machine makes some; 20 ms at each of the 18 interruptions would be 0.09


def noise() -> Sound:
    samples = np.random.default_rng(0).normal(0, 32768 * 10 ** (-20 / 20), 3 * TTS_RATE_HZ)
    return Sound(samples.astype(np.int16), AMBIENCE_DBFS + 20)


async def test_ambience_is_heard_at_its_level_without_a_gap_whatever_is_said(tmp_path: Path) -> None:
    tone = 32768 * 10 ** (VOICE_DBFS / 20) * 2**0.5 * np.sin(2 * np.pi * 500 * np.arange(TTS_RATE_HZ) / TTS_RATE_HZ)
    with LiveKitServer(tmp_path) as server:
        settings = Settings(**server.settings)
        rooms, robot = Rooms(settings), Robot(no_way_back)
        room = CallRoom(settings, rooms, ROOM)
        playout = Playout(
            room, SystemClock(), Mixer(noise()), lambda _: None, lambda _generation, _played: None, lambda _: None
        )
        await join_both(settings, room, robot)
        playing = asyncio.create_task(playout.run())
        playout.begin_ambience()
        await asyncio.sleep(SETTLE_S)
        from_ns = time.monotonic_ns()
        for generation in range(6):
            voice = playout.start(generation)
            voice.feed(tone.astype(np.int16))
            voice.commit()
            await asyncio.sleep(0.3)
            playout.hold()
            await asyncio.sleep(0.3)
            playout.resume()
            await asyncio.sleep(0.2)
            playout.cancel()
            await asyncio.sleep(0.4)
        to_ns = time.monotonic_ns()
        playing.cancel()
        await robot.leave()
        await room.close(wire.CallEnded(reason="caller_left", message=""))
        await rooms.close()
    heard = robot.heard.between(from_ns, to_ns)
    levels = np.array([level_dbfs(block) for block in np.array_split(heard.samples, round(heard.duration_ms / 20))])
    alone = levels[levels < (AMBIENCE_DBFS + VOICE_DBFS) / 2]
    gaps = np.mean(alone < AMBIENCE_DBFS - 10)
    print(f"\nambience alone: median {np.median(alone):.1f} dBFS, {alone.min():.1f} at least, gaps {gaps:.1%}")
    print(f"with a voice: median {np.median(levels[levels > VOICE_DBFS - 3]):.1f} dBFS")
    assert 0.4 < len(alone) / len(levels) < 0.75
    assert np.median(alone) == pytest.approx(AMBIENCE_DBFS, abs=4)
    assert gaps < GAPS, "gaps where the voice was taken back"
    assert np.median(levels[levels > VOICE_DBFS - 3]) == pytest.approx(VOICE_DBFS, abs=2)
