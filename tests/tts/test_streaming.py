"""Speeches and their streams, with an engine that says a word a step: each at a level of its own, to be known by."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from daemons.admission import Work
from daemons.audio import TTS_RATE_HZ, FloatSamples
from daemons.errors import Unavailable
from daemons.health import Block
from daemons.lane import Lane
from daemons.tts.speech import SpeechMetrics
from daemons.tts.streaming import AHEAD_S, FAILED, LONGEST_PART_CHARS, PART_CHARS, StreamSpeech, StreamVoice

WORD_SAMPLES = TTS_RATE_HZ // 10
LEVEL_STEP = 80  # of int16, between one word of the text and the next
FATAL = "xyzzy"


class Spoken:
    """A stream: what it was given, and how much of it has been said."""

    def __init__(self, on_audio: Callable[[FloatSamples], None], on_end: Callable[[str], None]) -> None:
        self.rests = self.is_speculative = self.has_ended = self.is_closed = False
        self.text = ""
        self.said = 0  # words
        self.on_audio, self.on_end = on_audio, on_end

    def write(self, text: str) -> None:
        self.text += text

    def end(self) -> None:
        self.has_ended = True

    def close(self) -> None:
        self.is_closed = True

    @property
    def words(self) -> list[str]:
        return self.text.split()


class Speller:
    voice = "speller"

    def __init__(self) -> None:
        self.streams: list[Spoken] = []
        self.most_open = 0
        self.steps = 0
        self.room: int | None = None  # words of a stream
        self._words: dict[str, int] = {}

    def load(self) -> None: ...

    def close(self) -> None: ...

    def open(self, *, seed: int, on_audio: Callable[[FloatSamples], None], on_end: Callable[[str], None]) -> Spoken:
        self.streams.append(Spoken(on_audio, on_end))
        return self.streams[-1]

    def step(self) -> bool:
        self.steps += 1
        open_now = [stream for stream in self.streams if not stream.is_closed]
        self.most_open = max(self.most_open, len(open_now))
        has_worked = False
        for stream in open_now:
            words = stream.words
            if stream.rests:
                continue
            if stream.said == self.room:
                stream.is_closed = has_worked = True
                stream.on_end("length")
            elif stream.said < len(words):
                word = words[stream.said]
                if word == FATAL:
                    raise RuntimeError("the card is gone")
                stream.said += 1
                stream.on_audio(np.full(WORD_SAMPLES, self.level(word) / 32768, np.float32))
                has_worked = True
            elif stream.has_ended:
                stream.is_closed = True
                stream.on_end("finished")
                has_worked = True
        return has_worked

    def level(self, word: str) -> int:
        """By which the word is known, the same whenever it is said."""
        return LEVEL_STEP * (1 + self._words.setdefault(word, len(self._words)))

    def heard(self, audio: np.ndarray) -> list[str]:
        words = list(self._words)
        return [words[round(level / LEVEL_STEP) - 1] for level in audio[WORD_SAMPLES // 2 :: WORD_SAMPLES].tolist()]


class Stand:
    """A voice, and why it gave up."""

    def __init__(self) -> None:
        metrics = CollectorRegistry()
        self.engine = Speller()
        self.failures: list[str] = []
        self.lane = Lane("tts", 1, metrics)
        self.voice = StreamVoice(self.engine, self.lane, SpeechMetrics(metrics), self.failures.append)

    def speech(self, text: str = "") -> StreamSpeech:
        speech = self.voice.speech(Work(0, None, Block()))
        if text:
            speech.write(text)
            speech.end()
        return speech

    async def rests(self, quiet_s: float = 0.05) -> None:
        """Returns when the engine has nothing more to do."""
        steps = -1
        while steps != self.engine.steps:
            steps = self.engine.steps
            await asyncio.sleep(quiet_s)


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    stand = Stand()
    await stand.voice.load()
    yield stand
    await stand.voice.close()
    stand.lane.close()


async def everything(speech: StreamSpeech) -> tuple[str, np.ndarray]:
    """The words that were told, and the audio."""
    words, audio = [], [np.zeros(0, np.int16)]
    async for spoken in speech:
        words.append(spoken.text)
        audio.append(spoken.samples)
    return " ".join(word for word in words if word), np.concatenate(audio)


def sentences(count: int) -> str:
    """The first and the last word of each come nowhere else."""
    letters = "abcdefghijklmnopqrst"
    names = [f"{letters[n // 20]}{letters[n % 20]}" for n in range(count)]
    return " ".join(f"{name}one says {name}two." for name in names)


async def test_a_long_text_is_said_by_one_stream_after_the_other_without_a_seam_or_a_lost_word(stand: Stand) -> None:
    text = sentences(100)
    told, audio = await everything(stand.speech(text))
    assert told == text
    assert stand.engine.heard(audio) == text.split(), "all words, in order, and no pause that the engine did not make"
    assert len(audio) == len(text.split()) * WORD_SAMPLES
    parts = [stream.text.strip() for stream in stand.engine.streams]
    assert " ".join(parts) == text
    assert len(parts) > 2
    for part in parts[:-1]:
        assert PART_CHARS < len(part.replace(" ", "")) < PART_CHARS + 20
        assert part.endswith(".")
    assert stand.engine.most_open == 1, "a request never takes two places"


async def test_a_text_without_sentences_is_parted_between_words(stand: Stand) -> None:
    text = sentences(150).replace(".", "")
    told, audio = await everything(stand.speech(text))
    assert told == text
    assert stand.engine.heard(audio) == text.split()
    first, *_ = (stream.text.strip() for stream in stand.engine.streams)
    assert LONGEST_PART_CHARS < len(first.replace(" ", "")) < LONGEST_PART_CHARS + 20


async def test_a_long_text_that_is_written_word_by_word_is_parted_alike(stand: Stand) -> None:
    text = sentences(60)
    speech = stand.speech()
    telling = asyncio.create_task(everything(speech))
    for word in text.split():
        speech.write(f"{word} ")
        await asyncio.sleep(0)
    speech.end()
    told, audio = await telling
    assert told == text
    assert stand.engine.heard(audio) == text.split()
    assert len(stand.engine.streams) > 1
    assert stand.engine.most_open == 1


async def test_a_stream_of_a_slow_reader_rests_and_takes_nothing_from_its_neighbours(stand: Stand) -> None:
    long = sentences(100)
    slow = stand.speech(long)
    reading = aiter(slow)
    begun = [await anext(reading)]
    await stand.rests()
    ahead = stand.engine.streams[0].said
    assert AHEAD_S * TTS_RATE_HZ <= ahead * WORD_SAMPLES <= AHEAD_S * TTS_RATE_HZ + 2 * WORD_SAMPLES
    short = sentences(20)
    told, audio = await asyncio.wait_for(everything(stand.speech(short)), 10)
    assert (told, stand.engine.heard(audio)) == (short, short.split())
    await stand.rests()
    assert stand.engine.streams[0].said == ahead
    assert len(stand.engine.streams) == 2, "what comes later of a slow text takes no place either"
    begun += [spoken async for spoken in reading]
    assert stand.engine.heard(np.concatenate([spoken.samples for spoken in begun])) == long.split()


async def test_a_text_is_ahead_by_no_more_where_its_streams_meet(stand: Stand) -> None:
    text = sentences(45)
    most_ahead = heard = 0
    async for spoken in stand.speech(text):
        heard += len(spoken.samples) // WORD_SAMPLES
        await stand.rests(0.01)
        most_ahead = max(most_ahead, sum(stream.said for stream in stand.engine.streams) - heard)
    assert heard == len(text.split())
    assert most_ahead * WORD_SAMPLES <= AHEAD_S * TTS_RATE_HZ + 2 * WORD_SAMPLES


async def test_the_engine_is_told_who_is_listened_to(stand: Stand) -> None:
    speech = stand.speech()
    speech.priority = "speculative"
    telling = asyncio.create_task(everything(speech))
    speech.write("One two three ")
    await stand.rests()
    [stream] = stand.engine.streams
    assert stream.is_speculative
    speech.priority = "committed"
    speech.write("")
    assert not stream.is_speculative
    speech.end()
    await telling


async def test_who_goes_away_between_two_streams_leaves_none(stand: Stand) -> None:
    reading = aiter(stand.speech(sentences(100)))
    while len(stand.engine.streams) < 2:
        await anext(reading)
    assert isinstance(reading, AsyncGenerator)
    await reading.aclose()
    await stand.rests()
    assert all(stream.is_closed for stream in stand.engine.streams)
    assert len(stand.engine.streams) == 2


async def test_an_engine_that_fails_in_a_step_ends_its_program_and_says_so_to_all(stand: Stand) -> None:
    other, speech = stand.speech(), stand.speech()
    waiting = asyncio.create_task(everything(other))
    telling = asyncio.create_task(everything(speech))
    other.write("One two three ")
    await stand.rests()
    assert not stand.failures
    speech.write(f"four {FATAL} five ")
    for task in (telling, waiting):
        with pytest.raises(Unavailable, match=FAILED):
            await asyncio.wait_for(task, 10)
    assert stand.failures == [FAILED]


async def test_what_the_engine_has_no_room_for_is_not_said_and_that_is_told(stand: Stand) -> None:
    stand.engine.room = 4
    speech = stand.speech("One two three four five six.")
    told, audio = await everything(speech)
    assert stand.engine.heard(audio) == ["One", "two", "three", "four"]
    assert "One two three four five six.".startswith(told)
    assert "six" not in told
    assert speech.is_cut
    whole = stand.speech("One two.")
    await everything(whole)
    assert not whole.is_cut


async def test_of_what_nobody_listens_to_nothing_is_made(stand: Stand) -> None:
    """A request may be cancelled before its task has run at all; nobody would close its stream."""
    speech = stand.speech("One two three.")
    await stand.rests()
    assert not stand.engine.streams
    told, _ = await everything(speech)
    assert told == "One two three."
