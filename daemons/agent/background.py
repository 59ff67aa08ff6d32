"""What the model is asked while nobody waits for its answer: about what the caller said, then to read ahead."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from daemons.agent.metrics import Metrics
from daemons.agent.persona import Lane
from daemons.agent.said import Said, Spoken
from daemons.agent.understanding import (
    Understanding,
    read_understanding,
    read_words,
    understanding_wanted,
    words_wanted,
)
from daemons.clock import Clock
from daemons.errors import BadRequest, Unavailable
from daemons.wire import Priority

log = logging.getLogger(__name__)

MOST_WAITING = 4  # turns of which something is still to be asked; then the oldest is let go
MOST_TRIES = 3
RETRY_S = 1.0
MOST_CHARS = 8000  # of an answer
MOST_SHOWN = 200  # characters of an answer that makes no sense


class Model(Protocol):
    def chat(self, body: dict[str, Any], priority: Priority) -> AsyncGenerator[str, None]:
        """Raises Unavailable, and BadRequest for what no worker would answer."""

    async def read_ahead(self, body: dict[str, Any]) -> None:
        """A hint; never raises."""

    async def keep_answer(self) -> None:
        """The speculative answer that is being written is heard by now: it makes way for nobody. A hint, as well."""


@dataclass(eq=False, slots=True)
class Note:
    """A turn of the caller's, and the messages before it.

    `heard` is a copy of `said`, which may let go of its sound before it is asked about.
    """

    generation: int
    segment: str
    said: Said
    heard: Said
    before: list[dict[str, Any]]
    wants_understanding: bool
    tries: int = 0


class Background:
    """Asks for one thing at a time, as speculative work, and stops when an answer is wanted.

    In the lanes slow and dual it asks for an Understanding of each turn, whose transcript is the caption of a Spoken;
    in the lane fast for that caption alone. `on_words` follows when a Spoken has its words or will have none;
    `on_understood` gets the Understanding, or why there is none.
    """

    def __init__(
        self,
        *,
        lane: Lane,
        model: Model,
        model_name: str,
        read_ahead: Callable[[], dict[str, Any] | None],
        on_words: Callable[[Note], None],
        on_understood: Callable[[Note, Understanding | str], None],
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        metrics: Metrics,
    ) -> None:
        self._lane = lane
        self._model = model
        self._model_name = model_name
        self._read_ahead = read_ahead
        self._on_words = on_words
        self._on_understood = on_understood
        self._clock = clock
        self._spawn = spawn
        self._metrics = metrics
        self._notes: deque[Note] = deque()
        self._noted: Said | None = None  # the last one
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """There is something to ask besides reading ahead."""
        return bool(self._notes)

    def note(self, generation: int, segment: str, said: Said, before: list[dict[str, Any]]) -> None:
        """The caller's turn is over; `before` are the messages before it.

        Noted again, because its answer is made again, it is asked about once.
        """
        if said is self._noted or (self._lane == "fast" and isinstance(said, str)):
            return
        self._noted = said
        heard = replace(said) if isinstance(said, Spoken) else said
        self._notes.append(Note(generation, segment, said, heard, before, wants_understanding=self._lane != "fast"))
        if len(self._notes) > MOST_WAITING:
            self._give_up(self._notes[0], "dropped", "too many others wait")

    def drop(self, said: Said) -> None:
        """The caller had not finished: more of the same will come as another turn."""
        for note in [note for note in self._notes if note.said is said]:
            self._notes.remove(note)

    def begin(self) -> None:
        """The model is free from now on, and what there is to read ahead may have changed."""
        if self._task is None or self._task.done() or not self._notes:
            self.stop()
            self._task = self._spawn(self._work())

    def stop(self) -> None:
        """An answer is wanted; what was under way is asked again later."""
        if self._task is not None:
            self._task.cancel()

    async def _work(self) -> None:
        while self._notes:
            await self._take(self._notes[0])
        if (body := self._read_ahead()) is not None:
            await self._model.read_ahead(body)

    async def _take(self, note: Note) -> None:
        """One request about it."""
        note.tries += 1
        try:
            answer = await self._ask(note)
        except asyncio.CancelledError:
            note.tries -= 1
            raise
        except BadRequest as error:
            self._give_up(note, "refused", str(error))
        except Unavailable as error:
            if note.tries < MOST_TRIES:
                await self._clock.sleep(RETRY_S)
            else:
                self._give_up(note, "failed", str(error))
        else:
            self._read(note, answer)

    async def _ask(self, note: Note) -> str:
        wants = note.wants_understanding
        wanted = understanding_wanted(note.heard, note.before) if wants else words_wanted(note.heard)
        answer = ""
        async with aclosing(self._model.chat({"model": self._model_name, **wanted}, "speculative")) as pieces:
            async for piece in pieces:
                answer += piece
                if len(answer) > MOST_CHARS:  # a server that does not count tokens
                    break
        return answer

    def _read(self, note: Note, answer: str) -> None:
        if note not in self._notes:  # dropped meanwhile
            return
        if not note.wants_understanding:
            self._end(note, "words", read_words(answer))
            return
        try:
            understanding = read_understanding(answer, note.said)
        except ValueError as error:
            self._metrics.notes.labels("garbage").inc()
            self._on_understood(note, f"{error}: {answer[:MOST_SHOWN]!r}")
            if isinstance(note.said, Spoken):  # its caption comes all the same
                note.wants_understanding, note.tries = False, 0
            else:
                self._notes.remove(note)
            return
        self._on_understood(note, understanding)
        self._end(note, "understanding", understanding.transcript)

    def _give_up(self, note: Note, outcome: str, why: str) -> None:
        if note not in self._notes:
            return
        log.info("turn %d: nothing is known of it besides: %s", note.generation, why)
        if note.wants_understanding:
            self._on_understood(note, why)
        self._end(note, outcome, None)

    def _end(self, note: Note, outcome: str, words: str | None) -> None:
        self._notes.remove(note)
        self._metrics.notes.labels(outcome).inc()
        if isinstance(note.said, Spoken):
            note.said.words = words
            self._on_words(note)
