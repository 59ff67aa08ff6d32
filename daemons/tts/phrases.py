"""A voice whose engine says one phrase after the other: text is cut into pieces, and their audio joined."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterable

import numpy as np

from daemons.admission import Work
from daemons.audio import TTS_RATE_HZ, Samples
from daemons.errors import BadRequest
from daemons.lane import Lane
from daemons.tts.engine import Phrase, TtsEngine
from daemons.tts.resume import RememberingEngine, Sounds
from daemons.tts.segment import Segment, Segmenter
from daemons.tts.speakable import speakable
from daemons.tts.speech import Keep, Speech, SpeechMetrics, Spoken
from daemons.tts.voice import Joiner, Limiter

WARM_UP_TEXT = "Hello, this is a test."


class PhraseVoice:
    def __init__(self, engine: TtsEngine, lane: Lane, metrics: SpeechMetrics) -> None:
        self._engine = engine
        self._lane = lane
        self._metrics = metrics

    @property
    def name(self) -> str:
        return self._engine.voice

    async def load(self) -> None:
        await self._lane.run(lambda _: self._engine.load())
        await self._lane.run(lambda _: list(self._engine.synthesize(Phrase(WARM_UP_TEXT), seed=0, speed=1.0)))

    def speech(
        self,
        work: Work,
        *,
        seed: int = 0,
        speed: float = 1.0,
        whole_sentences: bool = False,
        sounds: Sounds | None = None,
        keep: Keep | None = None,
    ) -> "PhraseSpeech":
        engine = self._engine if sounds is None else RememberingEngine(self._engine, sounds)
        segmenter = Segmenter(whole_sentences=whole_sentences)
        return PhraseSpeech(engine, self._lane, self._metrics, work, segmenter, seed=seed, speed=speed, keep=keep)

    async def close(self) -> None:
        await self._lane.run(lambda _: self._engine.close())


class PhraseSpeech(Speech):
    def __init__(
        self,
        engine: TtsEngine,
        lane: Lane,
        metrics: SpeechMetrics,
        work: Work,
        segmenter: Segmenter,
        *,
        seed: int,
        speed: float,
        keep: Keep | None,
    ) -> None:
        super().__init__(metrics, work, keep)
        self._engine = engine
        self._lane = lane
        self._seed = seed
        self._speed = speed
        self._segmenter = segmenter
        self._joiner = Joiner(engine.overlap)
        self._limiter = Limiter()
        self._segments: asyncio.Queue[tuple[Segment, float] | None] = asyncio.Queue()  # bounded by LONGEST_TEXT_CHARS

    def flush(self) -> None:
        self._line_up(self._segmenter.flush())

    def end(self) -> None:
        self.flush()
        self._segments.put_nowait(None)

    def _put(self, text: str) -> None:
        self._line_up(self._segmenter.push(text))

    def _line_up(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            self._segments.put_nowait((segment, time.monotonic()))

    async def _spoken(self) -> AsyncGenerator[Spoken, None]:
        wordless = ""
        has_sounded = False
        while (item := await self._segments.get()) is not None:
            segment, there_s = item
            phrase = _phrase(segment)
            samples = await self._say(phrase)
            if phrase.text and not len(samples):
                wordless = segment.text
            if len(samples) and not has_sounded:
                has_sounded = True
                self._metrics.first_chunk_s.observe(time.monotonic() - there_s)
            yield Spoken(segment.text, samples)
        if len(held := self._limiter(self._joiner.end())):
            has_sounded = True
            yield Spoken("", held)
        if wordless and not has_sounded:
            raise BadRequest(f"the voice {self._engine.voice} can say nothing of {wordless[:40]!r}")

    async def _say(self, phrase: Phrase) -> Samples:
        if not phrase.text:
            return np.zeros(0, np.int16) if phrase.is_open else self._limiter(self._joiner.end())
        asked_s = time.monotonic()
        with self._work.active():
            samples, waited_s, worked_s = await self._lane.run(
                lambda cancelled: self._render(phrase, asked_s, cancelled), self.priority
            )
        self._waited_s += waited_s
        for stage, stage_s in worked_s.items():
            self._worked_s[stage] += stage_s
        self._metrics.stages.observe(worked_s, len(samples) / TTS_RATE_HZ)
        return samples

    def _render(
        self, phrase: Phrase, asked_s: float, cancelled: threading.Event
    ) -> tuple[Samples, float, dict[str, float]]:
        """In the engine's thread: (samples, seconds waited, seconds worked by stage)."""
        started_s = time.monotonic()
        parts = [np.zeros(0, np.float32)]
        for part in self._engine.synthesize(phrase, seed=self._seed, speed=self._speed):
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
