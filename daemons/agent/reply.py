"""One reply: the model's words become segments of speech in a voice, and it is known which of them were heard."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from daemons.agent.playout import Voice
from daemons.agent.said import Said
from daemons.audio import Samples
from daemons.wire import Priority, TraceEvent, TtsSegment

# A sentence has ended when white space follows its mark, so that 3.5 and example.com hold together; CJK marks need none
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)]*\s|[。！？]")


class Speech(Protocol):
    """One request to a speaking worker."""

    async def write(self, text: str) -> None: ...

    async def end(self) -> None:
        """No more text follows."""

    async def commit(self) -> None:
        """Somebody listens from now on."""

    async def cancel(self) -> None: ...

    def __aiter__(self) -> AsyncIterator[TtsSegment | Samples]:
        """Segments, each before its audio (int16 [n] at 24 kHz). Raises Unavailable when the worker fails."""


class Speaker(Protocol):
    async def speech(self, priority: Priority, kept_as: str | None) -> Speech: ...


@dataclass(slots=True)
class Reply:
    """`caller` is what it answers, "" for an announcement."""

    generation: int
    caller: Said
    voice: Voice
    keep_caller: bool  # in the history, though the reply was cancelled unheard: the caller will not say it again
    written: str = ""  # as the model wrote it, which is what its prompt cache knows; segments hold what is spoken
    segments: list[TtsSegment] = field(default_factory=list)
    _begun: int = 0
    _committed: asyncio.Event = field(default_factory=asyncio.Event)

    def commit(self) -> None:
        """It may be heard, and what is still to be made of it is waited for."""
        self.voice.commit()
        self._committed.set()

    async def speak(
        self,
        pieces: AsyncGenerator[str, None],
        speaker: Speaker,
        kept_as: str | None,
        trace: Callable[[TraceEvent], None],
    ) -> None:
        """Speak what `pieces` yields into the voice. Raises Unavailable when a worker fails for good."""
        speech = await speaker.speech("committed" if self._committed.is_set() else "speculative", kept_as)
        try:
            async with asyncio.TaskGroup() as tasks:
                committing = tasks.create_task(self._commit(speech))
                tasks.create_task(self._listen(speech, trace))
                await self._write(pieces, speech, trace)
                committing.cancel()
        except ExceptionGroup as group:  # not except*, which would wrap what is raised here into a group again
            raise group.exceptions[0] from group
        finally:
            await speech.cancel()
        self.voice.end()

    async def _commit(self, speech: Speech) -> None:
        await self._committed.wait()
        await speech.commit()

    async def _write(
        self, pieces: AsyncGenerator[str, None], speech: Speech, trace: Callable[[TraceEvent], None]
    ) -> None:
        async with aclosing(pieces) as texts:
            async for text in texts:
                if not self.written:
                    trace("tts_requested")
                self.written += text
                await speech.write(text)
        await speech.end()

    async def _listen(self, speech: Speech, trace: Callable[[TraceEvent], None]) -> None:
        first = True
        async for part in speech:
            if isinstance(part, TtsSegment):
                self.segments.append(part)
                continue
            if first:
                trace("tts_first_chunk")
                first = False
            self.voice.feed(part)

    @property
    def text(self) -> str:
        return _join(segment.text for segment in self.segments)

    def begun(self, played_samples: int) -> str | None:
        """The text of all segments that have begun to be played, when that is more than at the last call."""
        begun = sum(segment.from_sample < played_samples for segment in self.segments)
        if begun == self._begun:
            return None
        self._begun = begun
        return _join(segment.text for segment in self.segments[:begun])

    def heard(self, played_samples: int) -> str:
        """The words that were played: whole segments, and of the last one the share that its audio had reached."""
        words: list[str] = []
        for segment in self.segments:
            share = (played_samples - segment.from_sample) / max(1, segment.samples)
            if share >= 1:
                words.append(segment.text)
            elif share > 0:
                all_words = segment.text.split()
                words.append(" ".join(all_words[: int(share * len(all_words))]))
        return _join(words)


async def first_sentences(pieces: AsyncGenerator[str, None], most: int) -> AsyncGenerator[str, None]:
    """Pass text on until `most` sentences have ended, then stop its source."""
    text = ""
    async with aclosing(pieces) as source:
        async for piece in source:
            before, text = len(text), text + piece
            ends = [found.end() for found in _SENTENCE_END.finditer(text)]
            if len(ends) >= most:
                yield text[before : ends[most - 1]]
                return
            yield piece


async def as_written(text: str) -> AsyncGenerator[str, None]:
    yield text


def _join(texts: Iterable[str]) -> str:
    return " ".join(text.strip() for text in texts if text.strip())
