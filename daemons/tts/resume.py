"""Streams that may be cut off and go on: what each was asked to say, and the engine's audio of it while there is room.

A stream goes on by being made again from its beginning, to the same samples: what the engine said of it is taken from
here where it is kept, and is said again with the same seed where it is not. What was sent already is not sent again.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from daemons.audio import FloatSamples
from daemons.errors import BadRequest
from daemons.tts.engine import Phrase, TtsEngine
from daemons.tts.kept import Kept

KEPT_STREAMS = 256
KEPT_S = 120.0
KEPT_BYTES = 64 * 2**20  # 11 minutes of audio, all streams together

Sounds = dict[Phrase, tuple[FloatSamples, ...]]  # what the engine gave for each phrase, step by step


@dataclass(eq=False)
class Hold:
    """One connection's hold of a stream."""

    taken_over: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False)
class RecentStream:
    id: str
    asked: Mapping[str, str]  # the query of the connection that began it
    holder: Hold | None = None

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Hold]:
        """One connection at a time: who comes later takes over, and waits here until the earlier one has left."""
        earlier, hold = self.holder, Hold()
        self.holder = hold
        try:
            if earlier is not None:
                earlier.taken_over.set()
                await earlier.left.wait()
            yield hold
        finally:
            hold.left.set()
            if self.holder is hold:
                self.holder = None


class RecentStreams:
    def __init__(self, *, count: int = KEPT_STREAMS, age_s: float = KEPT_S, total_bytes: int = KEPT_BYTES) -> None:
        self._age_s = age_s
        self._streams: Kept[RecentStream] = Kept(count=count, age_s=age_s)
        self._sounds: Kept[Sounds] = Kept(count=count, age_s=age_s, total_bytes=total_bytes)

    @property
    def bytes(self) -> int:
        """Of the audio that is kept."""
        return self._sounds.bytes

    def begin(self, asked: Mapping[str, str]) -> RecentStream:
        stream = RecentStream(secrets.token_hex(16), asked)
        self._streams.keep(stream.id, stream)
        return stream

    def find(self, stream_id: str) -> RecentStream:
        """Raises BadRequest when it is not known, or not any more."""
        stream = self._streams.get(stream_id)
        if stream is None:
            raise BadRequest(
                f"there is no stream {stream_id[:40]!r} that could go on; streams are kept for {self._age_s:g} s"
            )
        return stream

    def sounds(self, stream: RecentStream) -> Sounds:
        """What is kept of it; more may be put there."""
        sounds = self._sounds.get(stream.id)
        return {} if sounds is None else sounds

    def touch(self, stream: RecentStream, sounds: Sounds) -> None:
        """The stream is under way, and there may be more of `sounds`."""
        self._streams.keep(stream.id, stream)
        self._sounds.keep(stream.id, sounds, sum(part.nbytes for parts in list(sounds.values()) for part in parts))


class RememberingEngine:
    """Says what it has said before from memory."""

    def __init__(self, engine: TtsEngine, sounds: Sounds) -> None:
        self.voice = engine.voice
        self.overlap = engine.overlap
        self._sounds = sounds
        self._engine = engine

    def load(self) -> None:
        self._engine.load()

    def close(self) -> None:
        self._engine.close()

    def synthesize(self, phrase: Phrase, *, seed: int, speed: float) -> Iterator[FloatSamples]:
        """As TtsEngine; one stream has one seed and one speed, so the phrase alone tells what was said."""
        parts = self._sounds.get(phrase)
        if parts is None:
            parts = ()
            for part in self._engine.synthesize(phrase, seed=seed, speed=speed):
                parts += (part.copy(),)  # it may be a view, and would keep all of its sentence
                yield part
            self._sounds[phrase] = parts  # only what was said to its end
        else:
            yield from parts
