"""Playout into a sink that plays in virtual time as LiveKit's source does, into sinks that do not, and with a mixer."""

import asyncio
import tracemalloc

import numpy as np
import pytest

from daemons.agent.mixer import FADE_SAMPLES, Mixer, Sound
from daemons.agent.playout import FRAME_SAMPLES, MAX_VOICE_S, QUEUE_MS, Playout, Voice
from daemons.audio import FRAME_MS, TTS_RATE_HZ, Samples
from daemons.clock import FakeClock
from tests.agent.sink import Clock, Stage

FADE_MS = FADE_SAMPLES * 1000 // TTS_RATE_HZ
AMBIENCE = Sound(np.random.default_rng(0).integers(-3000, 3000, 7777).astype(np.int16))
THINKING = Sound(np.full(5000, 8000, np.int16))


@pytest.fixture
def stage() -> Stage:
    return Stage()


def frames(*values: int) -> Samples:
    """One 20 ms frame of each value."""
    return np.repeat(np.array(values, np.int16), FRAME_SAMPLES)


def fill(voice: Voice, *values: int) -> None:
    voice.feed(frames(*values))
    voice.end()


def speaks(stage: Stage, *values: int) -> Voice:
    """A voice whose first frames are these begins to be heard."""
    voice = stage.playout.start(1)
    fill(voice, *values)
    voice.commit()
    return voice


async def test_a_voice_is_played_in_order_and_its_end_is_told_when_it_was_heard(stage: Stage) -> None:
    async with stage.playing():
        voice = speaks(stage, *range(1, 11))
        await stage.passes(199)
        assert (stage.first, stage.over) == ([1], [])
        await stage.passes(1)
    assert stage.speaker.values() == list(range(1, 11))
    assert stage.over == [1]
    assert voice.played_samples == 10 * FRAME_SAMPLES


async def test_never_more_than_the_bound_is_queued(stage: Stage) -> None:
    async with stage.playing():
        speaks(stage, *range(1, 26))
        await stage.passes(600)
    assert stage.over == [1]
    assert stage.speaker.most_queued_ms <= QUEUE_MS


async def test_nothing_is_heard_before_the_commit(stage: Stage) -> None:
    async with stage.playing():
        voice = stage.playout.start(1)
        fill(voice, 1, 2)
        await stage.passes(100)
        assert stage.speaker.values() == []
        voice.commit()
        await stage.passes(100)
    assert stage.speaker.values() == [1, 2]


async def test_cancel_is_silence_at_once_and_tells_what_was_sent(stage: Stage) -> None:
    async with stage.playing():
        speaks(stage, *range(1, 51))
        await stage.passes(200)
        played = stage.playout.cancel()
        await stage.passes(200)
    assert stage.speaker.values() == list(range(1, 11)), "no frame of a cancelled voice is played"
    assert played == 10 * FRAME_SAMPLES
    assert stage.over == []


async def test_a_late_producer_cannot_reach_the_next_voice(stage: Stage) -> None:
    async with stage.playing():
        stale = stage.playout.start(1)
        stale.commit()
        stale.feed(frames(1, 1, 1))
        await stage.passes(40)
        fresh = stage.playout.start(2)
        stale.feed(frames(1, 1, 1))
        stale.end()
        fill(fresh, 2, 2, 2)
        fresh.commit()
        await stage.passes(200)
    assert stage.speaker.values() == [1, 1, 2, 2, 2]
    assert stage.over == [2]


async def test_hold_and_resume_lose_nothing_and_repeat_nothing(stage: Stage) -> None:
    async with stage.playing():
        speaks(stage, *range(1, 31))
        await stage.passes(160)
        stage.playout.hold()
        await stage.passes(150)
        assert stage.speaker.values() == list(range(1, 9))
        stage.playout.resume()
        await stage.passes(600)
    assert stage.speaker.values() == list(range(1, 31))


async def test_a_voice_that_is_fed_while_it_is_awaited_is_heard_at_once(stage: Stage) -> None:
    async with stage.playing():
        voice = stage.playout.start(1)
        voice.commit()
        for value in range(1, 6):
            voice.feed(frames(value))
            await stage.passes(20)
        voice.end()
        await stage.passes(20)
    assert stage.speaker.values() == [1, 2, 3, 4, 5]


async def test_the_last_frame_is_filled_with_silence(stage: Stage) -> None:
    async with stage.playing():
        voice = stage.playout.start(1)
        voice.feed(frames(7)[: FRAME_SAMPLES // 2])
        voice.end()
        voice.commit()
        await stage.passes(100)
    assert stage.speaker.heard().tolist() == [7] * (FRAME_SAMPLES // 2) + [0] * (FRAME_SAMPLES // 2)


async def test_a_producer_without_end_is_stopped(stage: Stage) -> None:
    voice = stage.playout.start(1)
    voice.feed(np.zeros(MAX_VOICE_S * TTS_RATE_HZ, np.int16))
    with pytest.raises(OverflowError, match=str(MAX_VOICE_S)):
        voice.feed(frames(1))


# With a background


def ambience(count: int) -> Samples:
    """Its first samples once it is faded in; before that it is softer."""
    return np.resize(AMBIENCE.loop, count)


def is_whole(heard: Samples, milliseconds: float) -> bool:
    """All of it was heard, and nothing else, and it never stopped for a moment."""
    faded = slice(FADE_SAMPLES, None)
    wanted = ambience(round(milliseconds * TTS_RATE_HZ / 1000))
    return len(heard) == len(wanted) and np.array_equal(heard[faded], wanted[faded])


@pytest.fixture
def accompanied() -> Stage:
    return Stage(Mixer(AMBIENCE, THINKING))


async def test_ambience_is_heard_without_a_gap_from_its_beginning_to_the_end(accompanied: Stage) -> None:
    async with accompanied.playing():
        await accompanied.passes(100)
        assert not len(accompanied.speaker.heard()), "not yet"
        accompanied.playout.begin_ambience()
        await accompanied.passes(3000)
    heard = accompanied.speaker.heard()
    assert is_whole(heard, 3000)
    assert np.abs(heard[:100]).max() < 50, "it is faded in"
    assert accompanied.speaker.most_queued_ms <= QUEUE_MS
    assert accompanied.speaker.plays <= 3000 / FRAME_MS + 3


async def test_a_voice_over_ambience_is_their_sum_and_counts_as_without_it(accompanied: Stage) -> None:
    async with accompanied.playing():
        accompanied.playout.begin_ambience()
        await accompanied.passes(110)
        voice = speaks(accompanied, *range(1000, 1010))
        await accompanied.passes(199)
        assert accompanied.over == []
        await accompanied.passes(1)
        assert accompanied.over == [1]
        await accompanied.passes(90)
    said = np.zeros(400 * TTS_RATE_HZ // 1000, np.int16)
    at = 110 * TTS_RATE_HZ // 1000
    said[at : at + 10 * FRAME_SAMPLES] = frames(*range(1000, 1010))
    assert is_whole(accompanied.speaker.heard() - said, 400), "from the moment on at which it was there"
    assert voice.played_samples == 10 * FRAME_SAMPLES


async def test_whoever_listens_for_echoes_is_told_each_frame_as_it_is_sent(accompanied: Stage) -> None:
    async with accompanied.playing():
        accompanied.playout.begin_ambience()
        await accompanied.passes(200)
        speaks(accompanied, *range(1000, 1010))
        await accompanied.passes(190)
        heard = accompanied.speaker.heard()[210 * TTS_RATE_HZ // 1000 : 390 * TTS_RATE_HZ // 1000]
    assert heard.tobytes() in np.concatenate(accompanied.sent).tobytes()


async def test_what_is_too_loud_together_is_clipped_and_does_not_wrap() -> None:
    stage = Stage(Mixer(Sound(np.full(5000, 20000, np.int16))))
    async with stage.playing():
        stage.playout.begin_ambience()
        await stage.passes(100)
        speaks(stage, *[30000] * 5)
        await stage.passes(100)
    assert stage.speaker.values()[-5:] == [32767] * 5


@pytest.mark.parametrize("taken_back", ["cancel", "hold"])
@pytest.mark.parametrize("at_ms", [200, 210, 213, 218])
async def test_ambience_goes_on_when_the_voice_falls_silent(accompanied: Stage, taken_back: str, at_ms: int) -> None:
    async with accompanied.playing():
        accompanied.playout.begin_ambience()
        await accompanied.passes(100)
        voice = speaks(accompanied, *[2000] * 50)
        await accompanied.passes(at_ms)
        if taken_back == "cancel":
            played = accompanied.playout.cancel()
        else:
            accompanied.playout.hold()
            played = voice.played_samples
        await accompanied.passes(300)
    sent_ms = (at_ms + 5) // 10 * 10
    assert played == sent_ms // FRAME_MS * FRAME_SAMPLES, "whole frames that were sent"
    said = np.zeros_like(accompanied.speaker.heard())
    said[100 * 24 : (100 + sent_ms) * 24] = 2000
    assert is_whole(accompanied.speaker.heard() - said, (100 + at_ms + 300 + 5) // 10 * 10)


async def test_a_reply_that_is_prepared_and_thrown_away_unheard_leaves_ambience_alone(accompanied: Stage) -> None:
    async with accompanied.playing():
        accompanied.playout.begin_ambience()
        await accompanied.passes(100)
        for generation in range(10):
            accompanied.playout.start(generation).feed(frames(9, 9))
            await accompanied.passes(13)
            assert accompanied.playout.cancel() == 0
    assert is_whole(accompanied.speaker.heard(), 230)


async def test_an_aside_is_silenced_and_ambience_is_not(accompanied: Stage) -> None:
    async with accompanied.playing():
        accompanied.playout.begin_ambience()
        await accompanied.passes(100)
        accompanied.playout.say_aside(frames(*[5000] * 20))
        await accompanied.passes(100)
        accompanied.playout.hush()
        await accompanied.passes(100)
    said = np.zeros(300 * 24, np.int16)
    said[100 * 24 : 200 * 24] = 5000
    assert is_whole(accompanied.speaker.heard() - said, 300)


async def test_the_thinking_sound_is_faded_in_and_makes_way_for_the_voice_at_once() -> None:
    stage = Stage(Mixer(thinking=THINKING))
    async with stage.playing():
        await stage.passes(50)
        stage.playout.think(True)
        await stage.passes(200)
        voice = stage.playout.start(1)
        voice.commit()
        await stage.passes(100)
        assert stage.playout.starving
        fill(voice, *[100] * 10)
        await stage.passes(190)
        stage.playout.think(False)
        await stage.passes(300)
    heard = stage.speaker.heard().astype(int)
    assert len(heard) == (300 + 200) * 24, "silence is not sent"
    assert np.all(np.abs(np.diff(heard[: 300 * 24])) < 20)
    assert np.all(heard[FADE_MS * 24 : 300 * 24] == 8000)
    fading = heard[300 * 24 : (300 + FADE_MS) * 24]
    assert heard[300 * 24] - heard[300 * 24 - 1] == pytest.approx(100, abs=20), "the voice is in the next sample"
    assert np.all(np.diff(fading) <= 0)
    assert np.all(heard[(300 + FADE_MS) * 24 :] == 100)


async def test_the_thinking_sound_begins_anew_each_time_and_is_not_heard_under_what_is_said() -> None:
    rising = Sound(np.arange(20_000, dtype=np.int16))
    stage = Stage(Mixer(thinking=rising))
    async with stage.playing():
        for _ in range(2):
            stage.playout.think(True)
            await stage.passes(200)
            stage.playout.say_aside(frames(*[0] * 10))
            await stage.passes(200)
            stage.playout.think(False)
            await stage.passes(200)
    heard = stage.speaker.heard()
    assert heard[100 * 24 : 200 * 24].tolist() == rising.loop[100 * 24 : 200 * 24].tolist()
    assert not heard[(200 + FADE_MS) * 24 : 400 * 24].any()
    assert heard.tolist() == [*heard[: len(heard) // 2], *heard[: len(heard) // 2]]


# Sinks that do not play


class Dead:
    """Takes everything at once, without ever giving way to another task."""

    def __init__(self) -> None:
        self.plays = 0

    async def play(self, samples: Samples) -> None:
        self.plays += 1

    def clear(self, unsent_samples: int) -> None:
        pass


class Deaf(Dead):
    """Never takes a frame."""

    async def play(self, samples: Samples) -> None:
        self.plays += 1
        await asyncio.Event().wait()


class Broken(Dead):
    async def play(self, samples: Samples) -> None:
        raise RuntimeError("it is gone")


def into(sink: Dead, clock: FakeClock, mixer: Mixer) -> tuple[Playout, asyncio.Task[None]]:
    playout = Playout(sink, clock, mixer, lambda _: None, lambda _generation, _played: None, lambda _: None)
    return playout, asyncio.create_task(playout.run())


async def ends(task: asyncio.Task[None]) -> bool:
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    return task.done()


@pytest.mark.parametrize("said", ["nothing", "a voice of 120 s"])
async def test_a_sink_that_takes_everything_at_once_is_sent_no_more_than_one_that_plays(said: str) -> None:
    sink, clock = Dead(), Clock()
    playout, task = into(sink, clock, Mixer(AMBIENCE, THINKING) if said == "nothing" else Mixer())
    playout.begin_ambience()
    playout.think(True)
    if said != "nothing":
        voice = playout.start(1)
        fill(voice, *[1] * (MAX_VOICE_S * 1000 // FRAME_MS))
        voice.commit()
    await clock.advance(1)
    tracemalloc.start()
    before_bytes, plays, sleeps = tracemalloc.get_traced_memory()[0], sink.plays, clock.sleeps
    await clock.advance(30)
    grown_bytes = tracemalloc.get_traced_memory()[0] - before_bytes
    tracemalloc.stop()
    assert sink.plays - plays <= 30 * 50 + 1
    assert clock.sleeps - sleeps <= 30 * 50 + 1
    assert grown_bytes < 50_000
    assert await ends(task)


async def test_after_a_stall_what_was_missed_is_not_made_up_for() -> None:
    sink, clock = Dead(), Clock()
    playout, task = into(sink, clock, Mixer(AMBIENCE))
    playout.begin_ambience()
    await clock.advance(1)
    plays = sink.plays
    clock.stall(10)
    await clock.advance(1)
    assert sink.plays - plays <= 50 + QUEUE_MS / FRAME_MS + 1
    assert await ends(task)


async def test_a_sink_that_takes_nothing_is_asked_once_and_does_not_hold_up_the_end() -> None:
    sink, clock = Deaf(), Clock()
    playout, task = into(sink, clock, Mixer(AMBIENCE))
    playout.begin_ambience()
    await clock.advance(30)
    assert sink.plays == 1
    assert await ends(task)


class Away(Dead):
    """Lets a frame wait until it is back, as a room does whose caller is not there."""

    def __init__(self) -> None:
        super().__init__()
        self.back = asyncio.Event()
        self.cleared: list[int] = []

    async def play(self, samples: Samples) -> None:
        self.plays += 1
        await self.back.wait()

    def clear(self, unsent_samples: int) -> None:
        self.cleared.append(unsent_samples)


@pytest.mark.parametrize("taken_back", ["cancel", "hold"])
async def test_a_frame_that_waits_for_its_sink_is_taken_back_and_was_not_played(taken_back: str) -> None:
    sink, clock = Away(), Clock()
    playout, task = into(sink, clock, Mixer(AMBIENCE))
    voice = playout.start(1)
    fill(voice, 1, 2, 3)
    voice.commit()
    await clock.advance(5)
    if taken_back == "cancel":
        assert playout.cancel() == 0
    else:
        playout.hold()
    assert (sink.plays, sink.cleared, voice.played_samples, len(voice.frames)) == (1, [FRAME_SAMPLES], 0, 3)
    sink.back.set()
    await clock.advance(5)
    assert (sink.plays, voice.played_samples) == (1, 0)
    assert await ends(task)


async def test_playout_ends_with_a_sink_that_breaks() -> None:
    playout, task = into(Broken(), Clock(), Mixer(AMBIENCE))
    playout.begin_ambience()
    with pytest.raises(RuntimeError, match="it is gone"):
        await asyncio.wait_for(task, 5)


async def test_random_interruptions_lose_nothing_of_a_voice_nor_of_the_ambience() -> None:
    """Voices held, resumed and cancelled, asides between: what is counted was heard, and ambience is whole."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        stage = Stage(Mixer(AMBIENCE))
        counted: list[int] = []
        async with stage.playing():
            stage.playout.begin_ambience()
            await stage.passes(FADE_MS)
            for generation in range(30):
                voice = stage.playout.start(generation)
                voice.commit()
                fill(voice, *range(101, 101 + int(random.integers(1, 20))))
                for _ in range(int(random.integers(1, 5))):
                    match random.integers(4):
                        case 0:
                            stage.playout.hold()
                        case 1:
                            stage.playout.resume()
                        case 2:
                            stage.playout.say_aside(frames(0, 0, 0))
                        case 3:
                            stage.playout.hush()
                    await stage.passes(float(random.integers(0, 6)) * FRAME_MS)
                stage.playout.cancel()
                counted += range(101, 101 + voice.played_samples // FRAME_SAMPLES)
        heard = stage.speaker.heard()
        assert len(heard) == (stage.clock.now_ns() - 10**9) * TTS_RATE_HZ // 10**9
        said = (heard - ambience(len(heard)))[FADE_SAMPLES:]
        assert [int(value) for value in said[::FRAME_SAMPLES] if value] == counted
        assert np.array_equal(said, np.repeat(said[::FRAME_SAMPLES], FRAME_SAMPLES))
