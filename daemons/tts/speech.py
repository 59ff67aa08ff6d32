"""One request's way from text to audio, the same behind every door."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram

from daemons.admission import Work
from daemons.audio import TTS_RATE_HZ, Samples
from daemons.errors import BadRequest
from daemons.lane import Lane
from daemons.tts.engine import Phrase, TtsEngine
from daemons.tts.segment import Segment, Segmenter
from daemons.tts.speakable import speakable
from daemons.tts.stages import STAGES, Stages
from daemons.tts.voice import Joiner, Limiter
from daemons.wire import Priority

log = logging.getLogger(__name__)

LONGEST_TEXT_CHARS = 20_000  # of one request: half an hour of speech
FIRST_CHUNK_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 5)


class SpeechMetrics:
    def __init__(self, metrics: CollectorRegistry) -> None:
        self.first_chunk_s = Histogram(
            "callbox_tts_first_chunk_seconds",
            "From the first words that can be said to their audio",
            buckets=FIRST_CHUNK_BUCKETS_S,
            registry=metrics,
        )
        self.stages = Stages(metrics)
        self.characters = Counter("callbox_tts_characters_total", "Text taken", registry=metrics)


@dataclass(frozen=True, slots=True)
class Spoken:
    """`text` as it was written, and its audio: int16 [n] at 24 kHz, empty when there was nothing to say."""

    text: str
    samples: Samples


class Voice:
    """An engine, its thread and its figures: what requests share."""

    def __init__(self, engine: TtsEngine, lane: Lane, metrics: SpeechMetrics) -> None:
        self.engine = engine
        self.lane = lane
        self.metrics = metrics


class Speech:
    """Text goes in by `write`, `flush` and `end`, at any pace; iterating yields each segment as soon as it is made."""

    def __init__(
        self, voice: Voice, work: Work, *, seed: int = 0, speed: float = 1.0, whole_sentences: bool = False
    ) -> None:
        """`whole_sentences`: nobody waits for the first sound, so nothing is said before its sentence is there."""
        self.priority: Priority = "committed"
        self.samples = 0
        self.ttfa_s: float | None = None
        self._voice = voice
        self._work = work
        self._seed = seed
        self._speed = speed
        self._segmenter = Segmenter(whole_sentences=whole_sentences)
        self._joiner = Joiner(voice.engine.overlap)
        self._limiter = Limiter()
        self._segments: asyncio.Queue[tuple[Segment, float] | None] = asyncio.Queue()  # bounded by LONGEST_TEXT_CHARS
        self._characters = 0
        self._began_s: float | None = None
        self._waited_s = 0.0
        self._worked_s = dict.fromkeys(STAGES, 0.0)

    def write(self, text: str) -> None:
        """More text. Raises BadRequest when it is too much for one request."""
        if self._began_s is None:
            self._began_s = time.monotonic()
        self._characters += len(text)
        if self._characters > LONGEST_TEXT_CHARS:
            raise BadRequest(f"a request may have at most {LONGEST_TEXT_CHARS} characters of text")
        self._voice.metrics.characters.inc(len(text))
        self._put(self._segmenter.push(text))

    def flush(self) -> None:
        """Say what is buffered, though no sentence has ended."""
        self._put(self._segmenter.flush())

    def end(self) -> None:
        """No more text follows."""
        self.flush()
        self._segments.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[Spoken]:
        """Raises BadRequest at the end when there was text and the voice could say nothing of it."""
        wordless = ""
        while (item := await self._segments.get()) is not None:
            segment, there_s = item
            phrase = _phrase(segment)
            samples = await self._say(phrase)
            if phrase.text and not len(samples):
                wordless = segment.text
            if len(samples) and self.ttfa_s is None and self._began_s is not None:
                self.ttfa_s = time.monotonic() - self._began_s
                self._voice.metrics.first_chunk_s.observe(time.monotonic() - there_s)
            self.samples += len(samples)
            yield Spoken(segment.text, samples)
        if len(held := self._limiter(self._joiner.end())):
            self.samples += len(held)
            yield Spoken("", held)
        if wordless and not self.samples:
            raise BadRequest(f"the voice {self._voice.engine.voice} can say nothing of {wordless[:40]!r}")

    @property
    def rtf(self) -> float | None:
        return sum(self._worked_s.values()) * TTS_RATE_HZ / self.samples if self.samples else None

    @property
    def stages(self) -> dict[str, float]:
        """Where the time went, in all segments together: waiting for the engine's thread, and each stage in it."""
        spent_s = {"wait": self._waited_s, **self._worked_s}
        return {f"{stage}_ms": round(stage_s * 1000, 2) for stage, stage_s in spent_s.items()}

    def _put(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            self._segments.put_nowait((segment, time.monotonic()))

    async def _say(self, phrase: Phrase) -> Samples:
        if not phrase.text:
            return np.zeros(0, np.int16) if phrase.is_open else self._limiter(self._joiner.end())
        asked_s = time.monotonic()
        with self._work.active():
            samples, waited_s, worked_s = await self._voice.lane.run(
                lambda cancelled: self._render(phrase, asked_s, cancelled), self.priority
            )
        self._waited_s += waited_s
        for stage, stage_s in worked_s.items():
            self._worked_s[stage] += stage_s
        self._voice.metrics.stages.observe(worked_s, len(samples) / TTS_RATE_HZ)
        return samples

    def _render(
        self, phrase: Phrase, asked_s: float, cancelled: threading.Event
    ) -> tuple[Samples, float, dict[str, float]]:
        """In the engine's thread: (samples, seconds waited, seconds worked by stage)."""
        started_s = time.monotonic()
        parts = [np.zeros(0, np.float32)]
        for part in self._voice.engine.synthesize(phrase, seed=self._seed, speed=self._speed):
            parts.append(part)
            if cancelled.is_set():
                break
        synthesized_s = time.monotonic()
        samples = self._limiter(self._joiner(np.concatenate(parts), phrase))
        worked_s = {"synthesis": synthesized_s - started_s, "finishing": time.monotonic() - synthesized_s}
        return samples, started_s - asked_s, worked_s


def _phrase(segment: Segment) -> Phrase:
    after = None if segment.after is None else speakable(segment.after)
    return Phrase(speakable(segment.text), speakable(segment.before), after)
