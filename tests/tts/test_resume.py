import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

from daemons.audio import FloatSamples
from daemons.errors import BadRequest
from daemons.settings import Settings
from daemons.tts.engine import ENGINES, Phrase, TtsEngine
from daemons.tts.resume import RecentStreams, RememberingEngine, Sounds

WORDS = ("One moment, please.", "I am still here.")


class Counting:
    """The real engine, and how often it was asked."""

    def __init__(self, engine: TtsEngine) -> None:
        self.voice = engine.voice
        self.overlap = engine.overlap
        self.asked: list[str] = []
        self._engine = engine

    def load(self) -> None:
        self._engine.load()

    def close(self) -> None:
        self._engine.close()

    def synthesize(self, phrase: Phrase, *, seed: int, speed: float) -> Iterator[FloatSamples]:
        self.asked.append(phrase.text)
        yield from self._engine.synthesize(phrase, seed=seed, speed=speed)


@pytest.fixture(scope="module")
def hibari() -> TtsEngine:
    engine = ENGINES["hibari"](Settings())
    engine.load()
    return engine


def say(recent: RecentStreams, stream_id: str, engine: TtsEngine, words: tuple[str, ...] = WORDS) -> FloatSamples:
    stream = recent.find(stream_id)
    sounds = recent.sounds(stream)
    remembering = RememberingEngine(engine, sounds)
    said = []
    for text in words:
        said += list(remembering.synthesize(Phrase(text), seed=0, speed=1.0))
        recent.touch(stream, sounds)
    return np.concatenate(said)


@pytest.mark.integration
def test_a_stream_is_said_from_memory_and_sounds_the_same(hibari: TtsEngine) -> None:
    engine, recent = Counting(hibari), RecentStreams()
    stream = recent.begin({})
    first = say(recent, stream.id, engine)
    assert np.array_equal(say(recent, stream.id, engine), first)
    assert engine.asked == [*WORDS]
    assert recent.bytes == first.nbytes


@pytest.mark.integration
def test_no_more_is_kept_than_what_was_said(hibari: TtsEngine) -> None:
    sounds: Sounds = {}
    remembering = RememberingEngine(hibari, sounds)
    list(remembering.synthesize(Phrase("One", after="two three four five six."), seed=0, speed=1.0))
    assert [part.base for parts in sounds.values() for part in parts] == [None]


@pytest.mark.integration
def test_another_stream_does_not_share_the_memory(hibari: TtsEngine) -> None:
    engine, recent = Counting(hibari), RecentStreams()
    for stream in (recent.begin({}), recent.begin({})):
        say(recent, stream.id, engine)
    assert engine.asked == [*WORDS, *WORDS]


@pytest.mark.integration
def test_without_room_in_memory_it_is_said_again_and_sounds_the_same(hibari: TtsEngine) -> None:
    engine, recent = Counting(hibari), RecentStreams(total_bytes=1000)
    stream = recent.begin({})
    first = say(recent, stream.id, engine)
    assert np.array_equal(say(recent, stream.id, engine), first)
    assert engine.asked == [*WORDS, *WORDS]


@pytest.mark.integration
def test_what_was_cut_off_within_a_sentence_is_said_again_from_its_beginning(hibari: TtsEngine) -> None:
    engine, recent = Counting(hibari), RecentStreams()
    stream = recent.begin({})
    begun = RememberingEngine(engine, recent.sounds(stream)).synthesize(Phrase(WORDS[0]), seed=0, speed=1.0)
    next(begun)
    begun.close()  # type: ignore[attr-defined]  # it is a generator
    whole = list(hibari.synthesize(Phrase(WORDS[0]), seed=0, speed=1.0))
    assert np.array_equal(say(recent, stream.id, engine, WORDS[:1]), np.concatenate(whole))


def test_a_stream_that_is_too_old_or_too_many_is_not_known_any_more() -> None:
    recent = RecentStreams(count=2)
    streams = [recent.begin({}) for _ in range(3)]
    assert recent.find(streams[2].id) is streams[2]
    with pytest.raises(BadRequest, match="no stream"):
        recent.find(streams[0].id)


async def test_connections_take_over_one_after_the_other() -> None:
    stream = RecentStreams().begin({})
    order: list[str] = []

    async def connect(name: str) -> None:
        async with stream.held() as hold:
            order.append(f"{name} has it")
            await hold.taken_over.wait()
            await asyncio.sleep(0.01)
            order.append(f"{name} leaves")

    tasks = []
    for name in "abc":
        tasks.append(asyncio.create_task(connect(name)))
        await asyncio.sleep(0)
    await asyncio.wait(tasks[:2], timeout=5)
    assert order == ["a has it", "a leaves", "b has it", "b leaves", "c has it"]
    tasks[2].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5), stream.held():
        pass
