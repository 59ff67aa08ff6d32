"""Playout: what the caller hears, 20 ms by 20 ms, and how far they have heard it.

At most `QUEUE_MS` lie in LiveKit's source, since what is queued there cannot be taken back quickly. Playout's own clock
says how much that is, so that a sink which takes everything at once, or is gone, is sent no more than one that plays. A
reply is a `Voice`: cancelling swaps it out instead of draining it, so a late producer fills a buffer that nobody plays.
An aside ("one moment, please") is said while a voice has nothing to play, and counts to none. The background goes on
under both, and makes way in the queue for the first word.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from daemons.agent.mixer import Mark, Mixer
from daemons.audio import FRAME_MS, TTS_RATE_HZ, Framer, Samples
from daemons.clock import Clock

QUEUE_MS = 60
SINK_STEP_MS = 10  # LiveKit's source sends so much at a time
FRAME_SAMPLES = TTS_RATE_HZ * FRAME_MS // 1000
FRAME_NS = FRAME_MS * 1_000_000
MAX_VOICE_S = 120
_SILENCE = np.zeros(FRAME_SAMPLES, np.int16)


class Sink(Protocol):
    """LiveKit's audio source, as far as playout needs it."""

    async def play(self, samples: Samples) -> None:
        """Queue one frame: int16 [480] at 24 kHz, which may have to wait. May raise what ends playout."""

    def clear(self, unsent_samples: int) -> None:
        """Drop what waits, and what is queued and not yet sent: playout believes it to be so much."""


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
    def audible(self) -> bool:
        """The caller may hear it now."""
        return self.committed and not self.held

    def feed(self, samples: Samples) -> None:
        """Add PCM, int16 [n] at 24 kHz. Raises OverflowError when MAX_VOICE_S of it wait to be played."""
        empty = not self.frames
        self.frames.extend(self._framer.push(samples))
        if len(self.frames) * FRAME_MS > MAX_VOICE_S * 1000:
            raise OverflowError(f"more than {MAX_VOICE_S} s of a reply wait to be played")
        if empty:
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


class _Sent(NamedTuple):
    """A frame that the sink may still hold: whose it is, what was said in it, and where the background stood."""

    voice: Voice | None  # None: the aside's, or nobody's
    said: Samples | None  # None: the background alone
    mark: Mark


class Playout:
    """Plays one voice at a time into the sink, asides between, and the mixer's background under all of it.

    `on_sent(samples)` follows each frame that the sink took, `on_frame(generation, played_samples)` each of a voice,
    `on_over(generation)` the last of those when it was heard.
    """

    def __init__(
        self,
        sink: Sink,
        clock: Clock,
        mixer: Mixer,
        on_sent: Callable[[Samples], None],
        on_frame: Callable[[int, int], None],
        on_over: Callable[[int], None],
    ) -> None:
        self._sink = sink
        self._clock = clock
        self._mixer = mixer
        self._on_sent = on_sent
        self._on_frame = on_frame
        self._on_over = on_over
        self._voice: Voice | None = None
        self._aside: deque[Samples] = deque()
        self._thinking = False
        self._sent: deque[_Sent] = deque(maxlen=math.ceil(QUEUE_MS / FRAME_MS))
        self._waits = False  # the last of them has not been taken yet
        self._empty_at_ns = 0  # when the sink will have played all that it was sent
        self._said_at_ns = 0  # and when the last of it that is more than background
        self._changed = asyncio.Event()

    def start(self, generation: int) -> Voice:
        """A new voice takes the place of what was played before; it is heard from its `commit` on."""
        self.cancel()
        self._voice = Voice(generation, self._changed)
        return self._voice

    def hold(self) -> int:
        """Silence the voice at once; what the sink had not sent is kept for `resume`.

        Returns how many of its samples the caller was sent so far.
        """
        if (voice := self._voice) is None:
            return 0
        if not voice.held:
            self._fall_silent()
            voice.held = True
        return voice.played_samples

    def resume(self) -> None:
        if self._voice is not None:
            self._voice.held = False
            self._changed.set()

    def cancel(self) -> int:
        """Silence the voice at once and for good; returns how many of its samples the caller was sent."""
        self._fall_silent()
        voice, self._voice = self._voice, None
        self._changed.set()
        return voice.played_samples if voice is not None else 0

    @property
    def starving(self) -> bool:
        """The caller could hear something now, and there is nothing."""
        voice = self._voice
        waiting = voice is None or (voice.audible and not voice.complete and not voice.frames)
        return waiting and not self._aside

    def say_aside(self, samples: Samples) -> None:
        """Play int16 [n] at 24 kHz, and then what the voice has."""
        framer = Framer(FRAME_SAMPLES)
        self._aside.extend(framer.push(samples))
        if len(rest := framer.flush()):
            self._aside.append(rest)
        self._changed.set()

    def hush(self) -> None:
        """No aside any more, and no thinking sound."""
        self.think(False)
        if self._aside:
            self._fall_silent()
            self._aside.clear()

    def begin_ambience(self) -> None:
        """It goes on for as long as playout runs."""
        self._mixer.begin()
        self._changed.set()

    def think(self, thinking: bool) -> None:
        """The thinking sound is heard from now on, wherever nothing is said; or no longer."""
        if thinking != self._thinking:
            self._thinking = thinking
            self._changed.set()

    async def run(self) -> None:
        """Play until cancelled, a frame at most in one turn of the loop. What the sink raises ends it."""
        while True:
            self._changed.clear()
            send_ns, over_ns = self._send_due_ns(), self._over_due_ns()
            early_ns = min(send_ns, over_ns) - self._clock.now_ns()
            if math.isinf(early_ns):
                await self._changed.wait()
            elif early_ns > 0 and await self._clock.happens(self._changed, early_ns / 1e9):
                continue  # what is due may be something else now
            elif send_ns < over_ns:
                await self._send(max(self._clock.now_ns(), int(send_ns)))
            elif (voice := self._voice) is not None:
                self._voice = None
                self._on_over(voice.generation)

    # What is to be done, and when

    @property
    def _speaks(self) -> bool:
        voice = self._voice
        return bool(self._aside) or (voice is not None and voice.audible and bool(voice.frames))

    def _send_due_ns(self) -> float:
        """When the next frame is to be sent; inf when there is none."""
        room_ns = self._empty_at_ns - (QUEUE_MS - FRAME_MS) * 1_000_000
        if self._speaks:
            return min(room_ns, self._said_at_ns) if self._said_at_ns < self._empty_at_ns else room_ns
        return room_ns if self._mixer.sounds(thinking=self._thinking and self.starving) else math.inf

    def _over_due_ns(self) -> float:
        """When the voice will have been heard to its end; inf when more of it is to come."""
        voice = self._voice
        if voice is None or not voice.audible or not voice.complete or self._speaks:
            return math.inf
        return self._said_at_ns

    async def _send(self, now_ns: int) -> None:
        if self._speaks and self._said_at_ns <= now_ns < self._empty_at_ns:
            self._take_back()  # only background is queued: it makes way
        voice, said = self._next_said()
        mixed, mark = self._mixer.mix(
            _SILENCE if said is None else said, thinking=self._thinking and said is None and self.starving
        )
        self._sent.append(_Sent(voice, said, mark))
        self._waits = True
        await self._sink.play(mixed)
        if not self._waits:
            return  # it was taken back
        self._waits = False
        self._on_sent(mixed)
        self._empty_at_ns = max(self._empty_at_ns, self._clock.now_ns()) + FRAME_NS
        if said is not None:
            self._said_at_ns = self._empty_at_ns
        if voice is not None and self._voice is voice and not voice.held:
            self._on_frame(voice.generation, voice.played_samples)

    def _next_said(self) -> tuple[Voice | None, Samples | None]:
        if self._aside:
            return None, self._aside.popleft()
        voice = self._voice
        if voice is None or not self._speaks:
            return None, None
        voice.played_samples += FRAME_SAMPLES
        return voice, voice.frames.popleft()

    # What is taken back

    def _fall_silent(self) -> None:
        """Nothing that was said lies in the sink any more; the background goes on."""
        waits_said = self._waits and self._sent[-1].said is not None
        if waits_said or self._said_at_ns > self._clock.now_ns():
            self._take_back()
            self._changed.set()

    def _take_back(self) -> None:
        """Empty the sink: who had frames there that it had not sent has them again."""
        now_ns = self._clock.now_ns()
        unsent_ms = round(max(0, self._empty_at_ns - now_ns) / 1e6 / SINK_STEP_MS) * SINK_STEP_MS
        unsent_ms += FRAME_MS if self._waits else 0
        unsent = math.ceil(unsent_ms / FRAME_MS)
        self._sink.clear(unsent_ms * TTS_RATE_HZ // 1000)
        for _ in range(unsent):
            voice, said, mark = self._sent.pop()
            if voice is not None and said is not None:
                voice.frames.appendleft(said)
                voice.played_samples -= FRAME_SAMPLES
            elif said is not None:
                self._aside.appendleft(said)
        if unsent:
            self._mixer.go_back(mark, (unsent * FRAME_MS - unsent_ms) * TTS_RATE_HZ // 1000)
        self._sent.clear()
        self._waits = False
        self._empty_at_ns = self._said_at_ns = now_ns
