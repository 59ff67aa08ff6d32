"""A background without end, a media server that is killed, and a tear-down that takes its time: what does it cost?

The known fault elsewhere: with a sink that was gone, silence was made as fast as the processor could, 311,000 frames a
second; a slow disconnect kept the task from ending, and memory ran out.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from livekit import rtc

from daemons import wire
from daemons.agent.mixer import Mixer, Sound
from daemons.agent.playout import QUEUE_MS, Playout, Sink
from daemons.agent.room import CallRoom
from daemons.audio import TTS_RATE_HZ, Samples, level_dbfs
from daemons.clock import SystemClock
from daemons.media import Rooms
from daemons.settings import Settings
from ops.figures import Bound, Report, Summary
from ops.livekit_server import LiveKitServer
from ops.robot import Robot, no_way_back, way_into

ROOM = "mixer-drill"
PLAYING_S = 5.0
AUDIBLE_TIMEOUT_S = 10.0
LEAVE_TIMEOUT_S = 10.0
END_TIMEOUT_S = 5.0
AMBIENCE_DBFS = -30.0
LOOP_S = 3

MOST_A_SECOND = 55
MOST_GROWTH_MB = 8  # in all; the fault would be 300 in each second
MOST_END_MS = 1000.0

PLAYING = "in a call"
KILLED = "server killed"
CLOSED = "source closed"
ROOM_SINK = "a room"
SOURCE_SINK = "a bare source"


class _Source:
    """LiveKit's source itself. It plays into nothing, and closed it takes every frame at once."""

    def __init__(self) -> None:
        self._source = rtc.AudioSource(TTS_RATE_HZ, 1, queue_size_ms=QUEUE_MS + 20)

    async def play(self, samples: Samples) -> None:
        await self._source.capture_frame(rtc.AudioFrame(samples.tobytes(), TTS_RATE_HZ, 1, len(samples)))

    def clear(self, unsent_samples: int) -> None:
        self._source.clear_queue()

    async def close(self) -> None:
        await self._source.aclose()


class _Played(SystemClock):
    """Playout of a background into `sink`, and how often it uses that and its clock: each once in a turn at most."""

    def __init__(self, name: str, sink: Sink) -> None:
        self.name = name
        self.frames = 0
        self.waits = 0
        self._sink = sink
        playout = Playout(
            self, self, _mixer(), lambda _sent: None, lambda _generation, _played: None, lambda _generation: None
        )
        playout.begin_ambience()
        playout.think(True)
        self._playing = asyncio.create_task(playout.run())

    async def play(self, samples: Samples) -> None:
        self.frames += 1
        await self._sink.play(samples)

    def clear(self, unsent_samples: int) -> None:
        self._sink.clear(unsent_samples)

    async def happens(self, event: asyncio.Event, within_s: float) -> bool:
        self.waits += 1
        return await super().happens(event, within_s)

    async def end_ms(self) -> float:
        """How long it takes to end; NaN when it does not. Raises what ended it before."""
        began_s = time.monotonic()
        self._playing.cancel()
        await asyncio.wait({self._playing}, timeout=END_TIMEOUT_S)
        if not self._playing.done():
            return math.nan
        with contextlib.suppress(asyncio.CancelledError):
            self._playing.result()
        return (time.monotonic() - began_s) * 1000


class _Second(NamedTuple):
    sink: str
    phase: str
    frames: float
    waits: float


async def drill(teardown_s: float, *, folder: Path, on_second: Callable[[int], None]) -> Report:
    """A call's room with a listener in it; its server is killed, and for `teardown_s` playout is left alone with it.

    Beside it a source of LiveKit's without a room. Raises StepFailed when there is no LiveKit server, Unavailable when
    it lets nobody in.
    """
    with LiveKitServer(folder) as server:
        settings = Settings(**server.settings)
        rooms, robot = Rooms(settings), Robot(no_way_back)
        room, source = CallRoom(settings, rooms, ROOM), _Source()
        try:
            await join_both(settings, room, robot)
            played = [_Played(ROOM_SINK, room), _Played(SOURCE_SINK, source)]
            watch = _Watch(played, on_second)
            await watch.during(PLAYING, asyncio.sleep(PLAYING_S))
            heard = robot.heard.pcm().samples
            server.kill()
            killed_s = time.monotonic()
            await watch.during(KILLED, asyncio.sleep(teardown_s / 3))
            await source.close()
            await watch.during(CLOSED, room.close(wire.CallEnded(reason="media_lost", message="")))
            left_s = time.monotonic() - killed_s
            await watch.during(CLOSED, asyncio.sleep(max(0.0, teardown_s - left_s)))
            ends_ms = [await one.end_ms() for one in played]
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(robot.leave(), LEAVE_TIMEOUT_S)
            await rooms.close()
    report = _report(watch, level_dbfs(heard[len(heard) // 2 :]), ends_ms)
    report.facts["room left after"] = f"{left_s:.1f} s"
    return report


def _mixer() -> Mixer:
    """Soft noise, and a soft tone over it."""
    noise = np.random.default_rng(0).normal(0, 32768 * 10 ** (AMBIENCE_DBFS / 20), LOOP_S * TTS_RATE_HZ)
    tone = 300 * np.sin(2 * np.pi * 440 * np.arange(LOOP_S * TTS_RATE_HZ) / TTS_RATE_HZ)
    return Mixer(Sound(noise.astype(np.int16)), Sound(tone.astype(np.int16)))


async def join_both(settings: Settings, room: CallRoom, robot: Robot) -> None:
    """Agent and caller enter ROOM; returns when the robot can hear the voice. Raises Unavailable, TimeoutError."""
    audible = asyncio.Event()
    await room.open(
        on_audio=lambda _samples: None,
        on_audible=audible.set,
        on_caller=lambda _present, _on_purpose: None,
        on_text=lambda _text: None,
        on_link=lambda _up: None,
        on_lost=lambda _why: None,  # a call would end its playout here
    )
    await robot.join(way_into(settings, ROOM))
    await asyncio.wait_for(audible.wait(), AUDIBLE_TIMEOUT_S)


class _Watch:
    """Looks each second."""

    def __init__(self, played: Sequence[_Played], on_second: Callable[[int], None]) -> None:
        self._played = played
        self._on_second = on_second
        self.seconds: list[_Second] = []
        self.memory_bytes: list[int] = []  # since the server was killed

    async def during(self, phase: str, work: Coroutine[None, None, None]) -> None:
        looking = asyncio.create_task(self._look(phase))
        try:
            await work
        finally:
            looking.cancel()
            await asyncio.wait({looking})

    async def _look(self, phase: str) -> None:
        process = psutil.Process()
        while True:
            before_s, before = time.monotonic(), [(one.frames, one.waits) for one in self._played]
            try:
                await asyncio.sleep(1)
            finally:
                seconds = max(1.0, time.monotonic() - before_s)  # the last one may be cut short
                for one, (frames, waits) in zip(self._played, before, strict=True):
                    rates = ((one.frames - frames) / seconds, (one.waits - waits) / seconds)
                    self.seconds.append(_Second(one.name, phase, *rates))
            if phase != PLAYING:
                self.memory_bytes.append(process.memory_info().rss)
            self._on_second(1)


def _report(watch: _Watch, heard_dbfs: float, ends_ms: Sequence[float]) -> Report:
    report = Report("A background whose sink is gone", unit="a second")
    for sink in (ROOM_SINK, SOURCE_SINK):
        for phase in (PLAYING, KILLED, CLOSED):
            here = [second.frames for second in watch.seconds if (second.sink, second.phase) == (sink, phase)]
            report.samples[f"frames to {sink}, {phase}"] = Summary.of(here)
    most = max(max(second.frames, second.waits) for second in watch.seconds if second.phase != PLAYING)
    first, *_, last = watch.memory_bytes
    report.counts["memory of the process when the server was gone, MB"] = round(first / 1e6, 1)
    report.counts["and at the end, MB"] = round(last / 1e6, 1)
    report.bounds += [
        Bound("level that was heard before", heard_dbfs, AMBIENCE_DBFS - 6, "dBFS", kind="at least"),
        Bound("turns of a playout's loop in any second without a server", most, MOST_A_SECOND),
        Bound("growth of memory without a server", round((last - first) / 1e6, 1), MOST_GROWTH_MB, "MB"),
        *(
            Bound(f"from its cancel to the end of playout to {sink}", end_ms, MOST_END_MS, "ms")
            for sink, end_ms in zip((ROOM_SINK, SOURCE_SINK), ends_ms, strict=True)
        ),
    ]
    return report
