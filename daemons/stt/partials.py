"""The words so far of an open utterance, told while the engine has nothing else to do."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator

import numpy as np
from prometheus_client import CollectorRegistry, Counter

from daemons import wire
from daemons.audio import STT_RATE_HZ, Samples
from daemons.errors import CallboxError
from daemons.stt.asked import Asked

log = logging.getLogger(__name__)

EVERY_MS = 400  # of new audio, at least
REST = 3  # after one, so many times what it took: partials take at most a quarter of real time
BYTES_PER_S = STT_RATE_HZ * 2
HOW = ("told", "unchanged", "gave_way", "failed")
GAVE_WAY = "gave_way"

# (int16 [n] at 16 kHz, what it is for) → text
Transcribe = Callable[[Samples, Asked], Awaitable[str]]
Tell = Callable[[wire.SttPartial], Awaitable[None]]


class Precedence:
    """Partials of all connections stop at once when other work comes, and none begins while it is there."""

    def __init__(self, metrics: CollectorRegistry) -> None:
        self._others = 0
        self._partials: set[asyncio.Task[None]] = set()
        self._count = Counter(
            "callbox_stt_partials_total", "Partials by what became of them", ["how"], registry=metrics
        )
        for how in HOW:
            self._count.labels(how)

    @contextlib.contextmanager
    def others(self) -> Iterator[None]:
        """Inside, this worker has work that is no partial."""
        for task in self._partials:
            task.cancel(GAVE_WAY)
        self._others += 1
        try:
            yield
        finally:
            self._others -= 1

    @property
    def is_free(self) -> bool:
        return self._others == 0

    def admit(self, task: "asyncio.Task[None]") -> None:
        self._partials.add(task)
        task.add_done_callback(self._partials.discard)

    def count(self, how: str) -> None:
        self._count.labels(how).inc()


class Partials:
    """Of one connection, one at a time. A partial never comes after the answer to a commit that holds more."""

    def __init__(self, transcribe: Transcribe, tell: Tell, precedence: Precedence) -> None:
        self._transcribe = transcribe
        self._tell = tell
        self._precedence = precedence
        self._task: asyncio.Task[None] | None = None
        self._utterance: int | None = None
        self._told = ""
        self._due_bytes = 0

    def open(self, utterance: int | None) -> None:
        """Partials are wanted of this utterance from now on, and of no other."""
        self.stop()
        self._utterance, self._told, self._due_bytes = utterance, "", EVERY_MS * BYTES_PER_S // 1000

    def hear(self, heard: bytearray) -> None:
        """`heard` is all that the utterance holds, PCM16."""
        if self._utterance is None or self._task or len(heard) < self._due_bytes or not self._precedence.is_free:
            return
        samples = np.frombuffer(bytes(heard), "<i2")
        self._due_bytes = len(heard) + EVERY_MS * BYTES_PER_S // 1000
        task = self._task = asyncio.create_task(self._make(self._utterance, samples))
        self._precedence.admit(task)
        task.add_done_callback(self._ended)

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel(GAVE_WAY)

    async def close(self) -> None:
        self.open(None)
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _make(self, utterance: int, samples: Samples) -> None:
        began_s = time.monotonic()
        try:
            text = await self._transcribe(samples, Asked("partial"))
        except asyncio.CancelledError:
            self._precedence.count(GAVE_WAY)
            raise
        except CallboxError as error:
            self._precedence.count("failed")
            log.debug("a partial failed: %s", error)
            return
        rest_bytes = int((time.monotonic() - began_s) * REST * STT_RATE_HZ) * 2
        self._due_bytes = max(self._due_bytes, len(samples) * 2 + rest_bytes)
        if text == self._told:
            self._precedence.count("unchanged")
            return
        self._told = text
        self._precedence.count("told")
        await self._tell(wire.SttPartial(utterance=utterance, text=text))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task is self._task:
            self._task = None
        if not task.cancelled() and (error := task.exception()):
            log.error("a partial failed", exc_info=error)
