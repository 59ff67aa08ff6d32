"""One request's way from text to audio, the same behind every door and whatever engine speaks."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram

from daemons.admission import Work
from daemons.audio import TTS_RATE_HZ, Samples
from daemons.errors import BadRequest
from daemons.tts.resume import Sounds
from daemons.tts.stages import STAGES, Stages
from daemons.wire import Priority

LONGEST_TEXT_CHARS = 20_000  # of one request: half an hour of speech
FIRST_CHUNK_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 5)

Keep = Callable[[Samples], None]


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


class Speech(ABC):
    """Text goes in by `write`, `flush` and `end`, at any pace; iterating yields audio as soon as it is made."""

    def __init__(self, metrics: SpeechMetrics, work: Work, keep: Keep | None) -> None:
        """`keep` is given all audio, whether or not anybody will hear it."""
        self.priority: Priority = "committed"
        self.samples = 0
        self.ttfa_s: float | None = None
        self.is_cut = False  # the engine had no room for all of it
        self._metrics = metrics
        self._work = work
        self._keep = keep
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
        self._metrics.characters.inc(len(text))
        self._put(text)

    @abstractmethod
    def _put(self, text: str) -> None: ...

    @abstractmethod
    def flush(self) -> None:
        """Say what is buffered, though no sentence has ended."""

    @abstractmethod
    def end(self) -> None:
        """No more text follows."""

    async def __aiter__(self) -> AsyncIterator[Spoken]:
        """Raises BadRequest at the end when there was text and the voice could say nothing of it."""
        async with aclosing(self._spoken()) as parts:
            async for spoken in parts:
                if len(spoken.samples) and self.ttfa_s is None and self._began_s is not None:
                    self.ttfa_s = time.monotonic() - self._began_s
                self.samples += len(spoken.samples)
                if self._keep is not None:
                    self._keep(spoken.samples)
                yield spoken

    @abstractmethod
    def _spoken(self) -> AsyncGenerator[Spoken, None]: ...

    @property
    def rtf(self) -> float | None:
        return sum(self._worked_s.values()) * TTS_RATE_HZ / self.samples if self.samples else None

    @property
    def stages(self) -> dict[str, float]:
        """Where the time went, in all segments together: waiting for the engine, and each stage in it."""
        spent_s = {"wait": self._waited_s, **self._worked_s}
        return {f"{stage}_ms": round(stage_s * 1000, 2) for stage, stage_s in spent_s.items()}


class Voice(Protocol):
    """An engine, its thread and its figures: what requests share."""

    @property
    def name(self) -> str: ...

    async def load(self) -> None:
        """Returns when it has spoken once. Raises ConfigurationError when it never could."""

    def speech(
        self,
        work: Work,
        *,
        seed: int = 0,
        speed: float = 1.0,
        whole_sentences: bool = False,
        sounds: Sounds | None = None,
        keep: Keep | None = None,
    ) -> Speech:
        """One request. The same text, seed and speed give the same samples.

        `whole_sentences`: nobody waits for the first sound. `sounds`: what an engine said of this very request before,
        and where it may leave what it says now. Raises BadRequest for a speed that the voice does not have.
        """

    async def close(self) -> None: ...
