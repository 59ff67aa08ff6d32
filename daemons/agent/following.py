"""Reads along while the caller speaks, so that the model knows most of the words before the last one is said."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from daemons import wire
from daemons.agent.hearing import Hearing
from daemons.audio import Samples
from daemons.errors import Unavailable
from daemons.wire import Priority

log = logging.getLogger(__name__)

EVERY_MS = 800.0  # of the utterance, with its pre-roll
REST = 4  # so many times what the last one took: reading along takes at most a quarter of real time


class Transcriber(Protocol):
    async def transcribe(self, samples: Samples, priority: Priority = "committed") -> wire.SttFinal:
        """The text of int16 [n] at 16 kHz. Raises Unavailable."""


class Following:
    """`on_words` is told when `words` has changed."""

    def __init__(
        self,
        *,
        hearing: Hearing,
        transcriber: Transcriber,
        on_words: Callable[[], None],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.words = ""  # of the utterance so far, but for the last one, which may be cut short
        self._hearing = hearing
        self._transcriber = transcriber
        self._on_words = on_words
        self._spawn = spawn
        self._task: asyncio.Task[None] | None = None
        self._next_ms = EVERY_MS

    def go_on(self) -> None:
        """The caller is speaking."""
        if self._hearing.utterance_ms >= self._next_ms and (self._task is None or self._task.done()):
            self._task = self._spawn(self._read())

    def stop(self) -> None:
        """What was said is wanted whole, and by somebody who waits for it."""
        if self._task is not None:
            self._task.cancel()

    def forget(self) -> None:
        """The utterance is over."""
        self.stop()
        self.words, self._next_ms = "", EVERY_MS

    async def _read(self) -> None:
        begun_ms = self._hearing.utterance_ms
        self._next_ms = begun_ms + EVERY_MS
        try:
            final = await self._transcriber.transcribe(self._hearing.utterance(), "speculative")
        except Unavailable as error:
            log.info("nobody reads along: %s", error)
            return
        self._next_ms = begun_ms + max(EVERY_MS, REST * final.compute_ms)
        if (words := without_last(final.text)) and words != self.words:
            self.words = words
            self._on_words()


def without_last(text: str) -> str:
    """All words but the last, and without the mark that a transcript puts after words that go on."""
    return text.strip().rpartition(" ")[0].rstrip(" .,;:?!…")
