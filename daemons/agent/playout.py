"""Playout: what the caller hears, 20 ms by 20 ms, and how far they have heard it.

At most `QUEUE_MS` lie in LiveKit's source, since what is queued there cannot be taken back quickly. A reply is a
`Voice`: cancelling swaps it out instead of draining it, so a late producer fills a buffer that nobody plays. An aside
("one moment, please") is said while a voice has nothing to play, and counts to none.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from daemons.audio import FRAME_MS, TTS_RATE_HZ, Framer, Samples
from daemons.clock import Clock

QUEUE_MS = 60
FRAME_SAMPLES = TTS_RATE_HZ * FRAME_MS // 1000
MAX_VOICE_S = 120


class Sink(Protocol):
    """LiveKit's audio source, as far as playout needs it."""

    @property
    def queued_ms(self) -> float: ...

    async def play(self, samples: Samples) -> None:
        """Queue one frame: int16 [480] at 24 kHz."""

    def clear(self) -> None:
        """Drop what is queued and not yet sent."""


class Voice:
    """The audio of one generation: filled by TTS, emptied by playout."""

    def __init__(self, generation: int, changed: asyncio.Event) -> None:
        self.generation = generation
        self.committed = False
        self.held = False
        self.complete = False
        self.frames: deque[Samples] = deque()
        self.played_samples = 0  # sent to the caller; the silence that fills the last frame counts
        self._framer = Framer(FRAME_SAMPLES)
        self._changed = changed

    @property
    def playable(self) -> bool:
        """There is something to play now, or the end to be noticed."""
        return self.committed and not self.held and (self.complete or bool(self.frames))

    def feed(self, samples: Samples) -> None:
        """Add PCM, int16 [n] at 24 kHz. Raises OverflowError when MAX_VOICE_S of it wait to be played."""
        self.frames.extend(self._framer.push(samples))
        if len(self.frames) * FRAME_MS > MAX_VOICE_S * 1000:
            raise OverflowError(f"more than {MAX_VOICE_S} s of a reply wait to be played")
        self._changed.set()

    def end(self) -> None:
        """No more audio follows."""
        if len(rest := self._framer.flush()):
            self.frames.append(rest)
        self.complete = True
        self._changed.set()

    def commit(self) -> None:
        """The caller may hear it."""
        self.committed = True
        self._changed.set()


class Playout:
    """Plays one voice at a time into the sink, and asides between.

    `on_frame(generation, played_samples)` follows each frame, `on_over(generation)` the last one when it was heard.
    """

    def __init__(
        self, sink: Sink, clock: Clock, on_frame: Callable[[int, int], None], on_over: Callable[[int], None]
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._on_frame = on_frame
        self._on_over = on_over
        self._voice: Voice | None = None
        self._aside: deque[Samples] = deque()
        # Whose frames the sink may still hold; None: the aside's
        self._sent: deque[tuple[Voice | None, Samples]] = deque(maxlen=math.ceil(QUEUE_MS / FRAME_MS))
        self._changed = asyncio.Event()

    def start(self, generation: int) -> Voice:
        """A new voice takes the place of what was played before; it is heard from its `commit` on."""
        self.cancel()
        self._voice = Voice(generation, self._changed)
        return self._voice

    def hold(self) -> None:
        """Silence at once; what the sink had not sent is kept for `resume`."""
        if (voice := self._voice) is not None and not voice.held:
            self._take_back()
            voice.held = True

    def resume(self) -> None:
        if self._voice is not None:
            self._voice.held = False
            self._changed.set()

    def cancel(self) -> int:
        """Silence the voice at once and for good; returns how many of its samples the caller was sent."""
        self._take_back()
        voice, self._voice = self._voice, None
        self._changed.set()
        return voice.played_samples if voice is not None else 0

    @property
    def starving(self) -> bool:
        """The caller could hear something now, and there is nothing."""
        voice = self._voice
        waiting = voice is None or (voice.committed and not voice.held and not voice.complete and not voice.frames)
        return waiting and not self._aside

    def say_aside(self, samples: Samples) -> None:
        """Play int16 [n] at 24 kHz, and then what the voice has."""
        framer = Framer(FRAME_SAMPLES)
        self._aside.extend(framer.push(samples))
        if len(rest := framer.flush()):
            self._aside.append(rest)
        self._changed.set()

    def hush(self) -> None:
        """No aside any more."""
        if self._aside:
            self._take_back()
            self._aside.clear()

    async def run(self) -> None:
        """Play until cancelled."""
        while True:
            self._changed.clear()
            voice = self._voice
            if not self._aside and (voice is None or not voice.playable):
                await self._changed.wait()
                continue
            more = self._aside or (voice is not None and voice.frames)
            if (early_ms := self._sink.queued_ms - (QUEUE_MS - FRAME_MS if more else 0)) > 0:
                await self._clock.sleep(max(early_ms, 1.0) / 1000)
            elif self._aside:
                self._sent.append((None, self._aside.popleft()))
                await self._sink.play(self._sent[-1][1])
            elif voice is not None and voice.frames:
                await self._play(voice)
            elif voice is not None:
                self._voice = None
                self._on_over(voice.generation)

    async def _play(self, voice: Voice) -> None:
        frame = voice.frames.popleft()
        voice.played_samples += FRAME_SAMPLES
        self._sent.append((voice, frame))
        await self._sink.play(frame)
        if self._voice is voice and not voice.held:
            self._on_frame(voice.generation, voice.played_samples)

    def _take_back(self) -> None:
        """Empty the sink: who had frames there that it had not sent has them again."""
        unsent = min(len(self._sent), math.ceil(self._sink.queued_ms / FRAME_MS))
        self._sink.clear()
        for _ in range(unsent):
            voice, frame = self._sent.pop()
            if voice is None:
                self._aside.appendleft(frame)
            else:
                voice.frames.appendleft(frame)
                voice.played_samples -= FRAME_SAMPLES
        self._sent.clear()
