"""How late the lab's recorder hears: one robot plays a chirp, another records it, on one clock."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import numpy.typing as npt
from scipy.signal import correlate

from daemons.audio import Pcm, to_int16
from daemons.errors import Unavailable
from daemons.media import Rooms
from daemons.settings import Settings
from ops.robot import RATE_HZ, Heard, Robot, no_way_back, way_into

CHIRPS = 5
CHIRP_S = 0.3
CHIRP_HZ = (300.0, 1200.0)  # higher ones come back distorted in the first seconds of a track, at its lowest bit rate
CHIRP_PEAK = 0.3
SETTLE_S = 1.0  # a jitter buffer begins with more than it needs
LATEST_S = 0.7
SURE = 0.5  # of a chirp's correlation with what was heard


@asynccontextmanager
async def two_robots(settings: Settings) -> AsyncIterator[tuple[Robot, Robot]]:
    """One to play and one to record, in a room of their own. Raises Unavailable."""
    room = f"lab-{secrets.token_hex(4)}"
    rooms, player, recorder = Rooms(settings), Robot(no_way_back), Robot(no_way_back)
    try:
        await rooms.create(room)
        for robot, identity in ((recorder, "recorder"), (player, "player")):
            await robot.join(way_into(settings, room, identity))
        await asyncio.sleep(SETTLE_S)
        yield player, recorder
    finally:
        await player.leave()
        await recorder.leave()
        await rooms.delete(room)
        await rooms.close()


async def path_ms(settings: Settings) -> list[float]:
    """From a sample that is given to LiveKit to the same one in a recording, for each of CHIRPS. Raises Unavailable."""
    async with two_robots(settings) as (player, recorder):
        pcm = Pcm(to_int16(chirp().astype(np.float32)), RATE_HZ)
        found = []
        for _ in range(CHIRPS):
            began_ns = await player.say(pcm)
            await asyncio.sleep(LATEST_S)
            found.append((heard_ns(recorder.heard, began_ns) - began_ns) / 1e6)
        return found


def chirp() -> npt.NDArray[np.float64]:
    """[CHIRP_S at RATE_HZ]: a tone that rises through CHIRP_HZ."""
    times = np.arange(round(CHIRP_S * RATE_HZ)) / RATE_HZ
    first, last = CHIRP_HZ
    phase = 2 * np.pi * (first * times + (last - first) / (2 * CHIRP_S) * times**2)
    return np.asarray(CHIRP_PEAK * np.hanning(len(times)) * np.sin(phase))


def heard_ns(heard: Heard, after_ns: int) -> int:
    """When the chirp that was played at `after_ns` was heard to begin. Raises Unavailable when it was not."""
    wanted = chirp()
    recorded = heard.between(after_ns, after_ns + round((CHIRP_S + LATEST_S) * 1e9)).samples.astype(np.float64) / 32768
    if len(recorded) < len(wanted):
        raise Unavailable("the lab's recorder hears nothing of what is played to it")
    products = correlate(recorded, wanted, "valid", method="fft")
    summed = np.concatenate([[0.0], np.cumsum(recorded**2)])
    energies = summed[len(wanted) :] - summed[: len(products)]
    likeness = np.abs(products) / np.sqrt(np.maximum(energies * np.sum(wanted**2), 1e-12))
    best = int(np.argmax(likeness))
    if likeness[best] < SURE:
        raise Unavailable("the lab's recorder does not hear the chirp that is played to it")
    return after_ns + round(best / RATE_HZ * 1e9)
