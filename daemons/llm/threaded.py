"""An engine that computes in this process, run in threads beside the event loop."""

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol

from daemons.errors import Unavailable
from daemons.lane import Lane
from daemons.llm.generation import WARM_UP, Generated, Generation, Modality

# Called with each piece of the answer, and with "" when a part of the prompt has been read. True stops the engine.
Emit = Callable[[str], bool]


class BlockingEngine(Protocol):
    takes: frozenset[Modality]

    def load(self) -> None:
        """Blocks until the model is in memory. Raises ConfigurationError when it cannot be loaded."""

    def generate(self, slot: int, generation: Generation, emit: Emit) -> Generated:
        """Continue the conversation in `slot`, whose prompt cache is the conversation's own.

        One call at a time for each slot; different slots from different threads. Raises BadRequest when the prompt does
        not fit, Unavailable when the engine fails.
        """

    def close(self) -> None: ...


class Threaded:
    """Each slot needs a thread of the lane for as long as it answers."""

    shares_compute = True

    def __init__(self, make: Callable[[], BlockingEngine], lane: Lane, *, model: str, slots: int) -> None:
        self.model = model
        self._make = make
        self._lane = lane
        self._slots = slots
        self._loaded: BlockingEngine | None = None

    @property
    def takes(self) -> frozenset[Modality]:
        return self._engine.takes

    async def load(self) -> None:
        def load(_: threading.Event) -> BlockingEngine:
            engine = self._make()
            engine.load()
            for slot in range(self._slots):
                engine.generate(slot, WARM_UP, lambda _: False)
            return engine

        self._loaded = await self._lane.run(load)

    async def generate(self, slot: int, generation: Generation, emit: Callable[[str], None]) -> Generated:
        loop = asyncio.get_running_loop()

        def generate(cancelled: threading.Event) -> Generated:
            def pass_on(text: str) -> bool:
                loop.call_soon_threadsafe(emit, text)
                return cancelled.is_set()

            return self._engine.generate(slot, generation, pass_on)

        return await self._lane.run(generate)

    async def check(self) -> None:
        """It stands on nothing but this process."""

    async def close(self) -> None:
        if self._loaded is not None:
            self._loaded.close()

    @property
    def _engine(self) -> BlockingEngine:
        if self._loaded is None:
            raise Unavailable("the engine is not loaded")
        return self._loaded
