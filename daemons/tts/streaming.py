"""A voice whose engine speaks several texts at once, each while it is still being written, packet by packet."""

import asyncio
import logging
import re
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, nullcontext
from functools import partial

import numpy as np

from daemons.admission import Work
from daemons.audio import TTS_RATE_HZ, FloatSamples
from daemons.errors import BadRequest, Unavailable
from daemons.lane import Lane
from daemons.tts.engine import EngineStream, StreamingEngine
from daemons.tts.pace import Pace
from daemons.tts.resume import Sounds
from daemons.tts.segment import ended_words
from daemons.tts.speakable import speakable
from daemons.tts.speech import Keep, Speech, SpeechMetrics, Spoken
from daemons.tts.voice import Limiter

log = logging.getLogger(__name__)

PART_CHARS = 400  # from so many on a new stream begins where a sentence ends, …
LONGEST_PART_CHARS = 1000  # … and from so many on wherever it is: the engine's room is bounded
SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…")
# A word and the space before it; where no spaces are written, a sentence.
_WORD = re.compile(r"\s*[^\s。！？]+[。！？]*|\s*[。！？]+|\s+")
AHEAD_S = 2.0  # of audio that nobody has asked for yet; then a stream rests
FAILED = "the engine failed; this worker starts again"


class StreamVoice:
    """`fail` is told when the engine can go on no more."""

    def __init__(
        self, engine: StreamingEngine, lane: Lane, metrics: SpeechMetrics, fail: Callable[[str], None]
    ) -> None:
        self.pace = Pace()
        self.metrics = metrics
        self._engine = engine
        self._lane = lane
        self._fail = fail
        self._wanted = asyncio.Event()
        self._open: dict[StreamSpeech, Work] = {}
        self._stepping: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._engine.voice

    async def load(self) -> None:
        await self._lane.run(lambda _: self._engine.load())
        self._stepping = asyncio.create_task(self._step(), name="tts steps")

    def speech(
        self,
        work: Work,
        *,
        seed: int = 0,
        speed: float = 1.0,
        whole_sentences: bool = False,
        sounds: Sounds | None = None,
        keep: Keep | None = None,
    ) -> "StreamSpeech":
        """`sounds` are not needed: what is said again is made again, to the same samples."""
        if speed != 1.0:
            raise BadRequest(f"the voice {self.name} has one speed; leave it at 1")
        return StreamSpeech(self, work, seed=seed, keep=keep)

    async def close(self) -> None:
        if self._stepping is not None:
            self._stepping.cancel()
        await self._lane.run(lambda _: self._engine.close())

    # For its speeches

    def begin(self, speech: "StreamSpeech", work: Work) -> None:
        self._open[speech] = work

    def leave(self, speech: "StreamSpeech") -> None:
        self._open.pop(speech, None)
        self.go_on()

    def open(self, seed: int, on_audio: Callable[[FloatSamples], None], on_end: Callable[[str], None]) -> EngineStream:
        """Both are called in the event loop."""
        loop = asyncio.get_running_loop()

        def hand_on(audio: FloatSamples) -> None:
            loop.call_soon_threadsafe(on_audio, audio)

        def end(ending: str) -> None:
            loop.call_soon_threadsafe(on_end, ending)

        return self._engine.open(seed=seed, on_audio=hand_on, on_end=end)

    def go_on(self) -> None:
        """There may be something for the engine to do."""
        self._wanted.set()

    async def _step(self) -> None:
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                while await self._one_step():
                    pass
        except Exception:
            log.exception("the engine failed")
            for speech in list(self._open):
                speech.fail(FAILED)
            self._fail(FAILED)

    async def _one_step(self) -> bool:
        """Whether the engine had anything to do. Somebody waits for it, so that a step that hangs is noticed."""
        work = next(iter(self._open.values()), None)
        began_s = time.monotonic()
        with nullcontext() if work is None else work.active():
            has_worked = await self._lane.run(lambda _: self._engine.step())
        took_s = time.monotonic() - began_s
        if has_worked:
            for speech in self._open:
                speech.worked(took_s)
        return has_worked


class _Part:
    """What one stream of the engine says: the text from one flush to the next, or as much as there is room for."""

    def __init__(self) -> None:
        self.arriving: asyncio.Queue[FloatSamples | Exception | None] = asyncio.Queue()  # bounded by AHEAD_S
        self.words: list[str] = []  # as they were written
        self.there_s = time.monotonic()  # since when it has words that can be said
        self.stream: EngineStream | None = None  # once its turn has come
        self.is_cut = False
        self._written: list[str] = []  # before
        self._has_ended = False

    @property
    def length(self) -> int:
        """Characters, without white space."""
        return sum(map(len, self.words))

    def begin(self, stream: EngineStream) -> None:
        self.stream = stream
        for text in self._written:
            stream.write(text)
        if self._has_ended:
            stream.end()

    def write(self, text: str) -> None:
        if self.stream is None:
            self._written.append(text)
        else:
            self.stream.write(text)

    def end(self) -> None:
        self._has_ended = True
        if self.stream is not None:
            self.stream.end()


class StreamSpeech(Speech):
    """What is said when in a stream the engine does not tell: words are handed out at the voice's pace."""

    def __init__(self, voice: StreamVoice, work: Work, *, seed: int, keep: Keep | None) -> None:
        super().__init__(voice.metrics, work, keep)
        self._voice = voice
        self._seed = seed
        self._text = ""  # whose last word may go on
        self._follows_space = False
        self._wordless = ""
        self._limiter = Limiter(gain_db=0.0)
        self._parts: asyncio.Queue[_Part | None] = asyncio.Queue()  # to be heard; bounded by LONGEST_TEXT_CHARS
        self._unmade: deque[_Part] = deque()  # the first has the engine's stream: a request takes one place there
        self._writing: _Part | None = None
        self._ahead = 0  # samples that nobody has asked for yet
        self._is_heard = False  # nothing is made of what nobody listens to, and perhaps never will

    def flush(self) -> None:
        text, self._text = self._text, ""
        self._write(text)
        self._end_part()

    def end(self) -> None:
        self.flush()
        self._parts.put_nowait(None)

    def worked(self, seconds: float) -> None:
        """The engine did a step for this and others."""
        if self._unmade:
            self._worked_s["synthesis"] += seconds

    def fail(self, why: str) -> None:
        for part in self._unmade:
            part.arriving.put_nowait(Unavailable(why))

    def _put(self, text: str) -> None:
        self._direct()
        self._text += text
        end = ended_words(self._text)
        text, self._text = self._text[:end], self._text[end:]
        self._write(text)

    def _write(self, text: str) -> None:
        """`text` is of whole words, if of any."""
        for piece in self._parted(text):
            self._say(piece)

    def _parted(self, text: str) -> Iterator[str]:
        """Cut where one part has to end and another to begin."""
        piece, length = "", 0 if self._writing is None else self._writing.length
        for word in _WORD.findall(text):
            piece += word
            length += len(word.strip())
            if _is_full(length, piece):
                yield piece
                piece, length = "", 0
        if piece:
            yield piece

    def _say(self, text: str) -> None:
        said = speakable(text)
        if text.strip() and not said:
            self._wordless = text
        if self._writing is None and said:
            self._begin_part()
        if (part := self._writing) is not None:
            part.words += text.split()
            if said:
                part.write(f" {said}" if self._follows_space or text[0].isspace() else said)
                self._voice.go_on()
            if _is_full(part.length, text):
                self._end_part()
        self._follows_space = text[-1].isspace()

    # Parts, made one after the other

    def _begin_part(self) -> None:
        self._writing = _Part()
        self._parts.put_nowait(self._writing)
        self._unmade.append(self._writing)
        if self._is_heard and len(self._unmade) == 1:
            self._make(self._writing)

    def _end_part(self) -> None:
        if self._writing is not None:
            self._writing.end()
            self._writing = None
            self._voice.go_on()

    def _make(self, part: _Part) -> None:
        part.begin(self._voice.open(self._seed, partial(self._take, part), partial(self._made, part)))
        self._direct()

    def _made(self, part: _Part, ending: str) -> None:
        part.is_cut = ending == "length"
        part.arriving.put_nowait(None)
        if self._unmade and self._unmade[0] is part:
            self._unmade.popleft()
            if self._unmade:
                self._make(self._unmade[0])

    def _take(self, part: _Part, audio: FloatSamples) -> None:
        part.arriving.put_nowait(audio)
        self._ahead += len(audio)
        self._direct()

    def _taken(self, audio: FloatSamples) -> None:
        """Somebody has asked for it."""
        self._ahead -= len(audio)
        self._direct()

    def _direct(self) -> None:
        """Tell the engine what its stream of this request is to it."""
        if self._unmade and (stream := self._unmade[0].stream) is not None:
            stream.rests = self._ahead >= AHEAD_S * TTS_RATE_HZ
            stream.is_speculative = self.priority == "speculative"
            self._voice.go_on()

    async def _spoken(self) -> AsyncGenerator[Spoken, None]:
        has_parts = False
        self._voice.begin(self, self._work)
        try:
            self._is_heard = True
            if self._unmade:
                self._make(self._unmade[0])
            while (part := await self._parts.get()) is not None:
                has_parts = True
                async with aclosing(self._said(part)) as pieces:
                    async for spoken in pieces:
                        yield spoken
            if self._wordless and not has_parts:
                raise BadRequest(f"the voice {self._voice.name} can say nothing of {self._wordless[:40]!r}")
        finally:
            self._is_heard = False
            unmade, self._unmade = self._unmade, deque()
            if unmade and (stream := unmade[0].stream) is not None:
                stream.close()
            self._voice.leave(self)

    async def _said(self, part: _Part) -> AsyncGenerator[Spoken, None]:
        pace, told, samples = self._voice.pace, 0, 0
        while (audio := await part.arriving.get()) is not None:
            if isinstance(audio, Exception):
                raise audio
            self._taken(audio)
            if not samples:
                self._metrics.first_chunk_s.observe(time.monotonic() - part.there_s)
            samples += len(audio)
            due = max(told, pace.words_in(samples / TTS_RATE_HZ, part.words))
            text, told = " ".join(part.words[told:due]), due
            began_s = time.monotonic()
            limited = self._limiter(audio)
            self._worked_s["finishing"] += time.monotonic() - began_s
            yield Spoken(text, limited)
        if part.is_cut:
            log.warning("a text was longer than the voice has room for; its end was not said")
            self.is_cut = True
            return
        if samples:
            pace.learn(samples / TTS_RATE_HZ, part.words)
        if told < len(part.words):
            yield Spoken(" ".join(part.words[told:]), np.zeros(0, np.int16))


def _is_full(length: int, text: str) -> bool:
    """Whether a part of so many characters, the last of them `text`, takes no more."""
    return length > LONGEST_PART_CHARS or (length > PART_CHARS and text.rstrip().endswith(SENTENCE_ENDS))
