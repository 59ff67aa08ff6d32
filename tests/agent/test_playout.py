"""Playout into a sink that plays in real time, as LiveKit's source does."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from daemons.agent.playout import FRAME_SAMPLES, MAX_VOICE_S, QUEUE_MS, Playout, Voice
from daemons.audio import FRAME_MS, TTS_RATE_HZ, Samples
from daemons.clock import SystemClock


class Speaker:
    """A sink: keeps what was sent to the caller and how much was ever queued."""

    def __init__(self) -> None:
        self.frames: list[Samples] = []
        self.most_queued_ms = 0.0
        self._empty_at_s = 0.0

    @property
    def queued_ms(self) -> float:
        return max(0.0, (self._empty_at_s - time.monotonic()) * 1000)

    async def play(self, samples: Samples) -> None:
        self._empty_at_s = max(self._empty_at_s, time.monotonic()) + len(samples) / TTS_RATE_HZ
        self.most_queued_ms = max(self.most_queued_ms, self.queued_ms)
        self.frames.append(samples)

    def clear(self) -> None:
        unsent = round(self.queued_ms / FRAME_MS + 0.499)
        del self.frames[len(self.frames) - min(unsent, len(self.frames)) :]
        self._empty_at_s = 0.0

    def values(self) -> list[int]:
        return [int(frame[0]) for frame in self.frames]


class Stage:
    def __init__(self) -> None:
        self.speaker = Speaker()
        self.first: list[int] = []
        self.over: list[int] = []
        self.finished = asyncio.Event()
        self.playout = Playout(self.speaker, SystemClock(), self._on_frame, self._on_over)

    def _on_frame(self, generation: int, played_samples: int) -> None:
        if played_samples == FRAME_SAMPLES:
            self.first.append(generation)

    def _on_over(self, generation: int) -> None:
        self.over.append(generation)
        self.finished.set()

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.playout.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def stage() -> Stage:
    return Stage()


def frames(*values: int) -> Samples:
    """One 20 ms frame of each value."""
    return np.repeat(np.array(values, np.int16), FRAME_SAMPLES)


def fill(voice: Voice, *values: int) -> None:
    voice.feed(frames(*values))
    voice.end()


async def test_a_voice_is_played_in_order_and_its_end_is_told(stage: Stage) -> None:
    async with stage.playing():
        voice = stage.playout.start(1)
        fill(voice, *range(1, 11))
        voice.commit()
        await asyncio.wait_for(stage.finished.wait(), 5)
    assert stage.speaker.values() == list(range(1, 11))
    assert (stage.first, stage.over) == ([1], [1])
    assert voice.played_samples == 10 * FRAME_SAMPLES


async def test_never_more_than_the_bound_is_queued(stage: Stage) -> None:
    async with stage.playing():
        voice = stage.playout.start(1)
        fill(voice, *range(1, 26))
        voice.commit()
        await asyncio.wait_for(stage.finished.wait(), 5)
    assert stage.speaker.most_queued_ms <= QUEUE_MS + 1


async def test_nothing_is_heard_before_the_commit(stage: Stage) -> None:
    async with stage.playing():
        voice = stage.playout.start(1)
        fill(voice, 1, 2)
        await asyncio.sleep(0.1)
        assert stage.speaker.values() == []
        voice.commit()
        await asyncio.wait_for(stage.finished.wait(), 5)
    assert stage.speaker.values() == [1, 2]


async def test_cancel_is_silence_at_once_and_tells_what_was_sent(stage: Stage) -> None:
    async with stage.playing():
        voice = stage.playout.start(1)
        fill(voice, *range(1, 51))
        voice.commit()
        await asyncio.sleep(0.2)
        played = stage.playout.cancel()
        sent = stage.speaker.values()
        await asyncio.sleep(0.1)
    assert stage.speaker.values() == sent, "no frame of a cancelled voice is played"
    assert 0 < len(sent) < 50
    assert played == len(sent) * FRAME_SAMPLES
    assert stage.over == []


async def test_a_late_producer_cannot_reach_the_next_voice(stage: Stage) -> None:
    async with stage.playing():
        stale = stage.playout.start(1)
        stale.commit()
        stale.feed(frames(1, 1, 1))
        await asyncio.sleep(0.05)
        fresh = stage.playout.start(2)
        before = len(stage.speaker.frames)
        stale.feed(frames(1, 1, 1))
        stale.end()
        fill(fresh, 2, 2, 2)
        fresh.commit()
        await asyncio.wait_for(stage.finished.wait(), 5)
    assert stage.speaker.values()[before:] == [2, 2, 2]
    assert stage.over == [2]


async def test_hold_and_resume_lose_nothing_and_repeat_nothing(stage: Stage) -> None:
    async with stage.playing():
        voice = stage.playout.start(1)
        fill(voice, *range(1, 31))
        voice.commit()
        await asyncio.sleep(0.15)
        stage.playout.hold()
        held = stage.speaker.values()
        await asyncio.sleep(0.15)
        assert stage.speaker.values() == held
        stage.playout.resume()
        await asyncio.wait_for(stage.finished.wait(), 5)
    assert stage.speaker.values() == list(range(1, 31))


async def test_the_last_frame_is_filled_with_silence(stage: Stage) -> None:
    async with stage.playing():
        voice = stage.playout.start(1)
        voice.feed(frames(7)[: FRAME_SAMPLES // 2])
        voice.end()
        voice.commit()
        await asyncio.wait_for(stage.finished.wait(), 5)
    (frame,) = stage.speaker.frames
    assert frame.tolist() == [7] * (FRAME_SAMPLES // 2) + [0] * (FRAME_SAMPLES // 2)


async def test_a_producer_without_end_is_stopped(stage: Stage) -> None:
    voice = stage.playout.start(1)
    voice.feed(np.zeros(MAX_VOICE_S * TTS_RATE_HZ, np.int16))
    with pytest.raises(OverflowError, match=str(MAX_VOICE_S)):
        voice.feed(frames(1))
