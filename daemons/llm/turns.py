"""Whose turn it is at the engine: one request at a time in each slot, and committed work before speculative work."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from daemons.errors import AtCapacity
from daemons.wire import Priority

PATIENCE_S = 10.0  # of speculative work; committed work waits for work that is bounded itself


@dataclass(eq=False, slots=True)
class Turn:
    slot: int
    priority: Priority
    granted: asyncio.Event = field(default_factory=asyncio.Event)
    kept: bool = False  # speculative, but somebody listens by now: it makes way for nobody, nor anybody for it
    _must_end: bool = False
    _stop: Callable[[], object] | None = None

    @property
    def yields(self) -> bool:
        return self.priority == "speculative" and not self.kept

    def stopped_by(self, stop: Callable[[], object]) -> None:
        """How the work of this turn is stopped when it must make way, which may be at once."""
        self._stop = stop
        if self._must_end:
            stop()

    def make_way(self) -> None:
        self._must_end = True
        if self._stop is not None:
            self._stop()


class Turns:
    """`across_slots`: the slots share the engine's compute, so committed work in one stops speculative work in all."""

    def __init__(self, *, across_slots: bool) -> None:
        self._across_slots = across_slots
        self._waiting: list[Turn] = []
        self._held: dict[int, Turn] = {}

    @asynccontextmanager
    async def turn(self, slot: int, priority: Priority) -> AsyncIterator[Turn]:
        """Wait for it and hold it while inside. Raises AtCapacity when speculative work has waited for PATIENCE_S."""
        turn = Turn(slot, priority)
        self._waiting.append(turn)
        self._advance()
        try:
            try:
                async with asyncio.timeout(PATIENCE_S if priority == "speculative" else None):
                    await turn.granted.wait()
            except TimeoutError:
                raise AtCapacity(f"others' committed work has gone first for {PATIENCE_S:g} s; try again") from None
            yield turn
        finally:
            if self._held.get(slot) is turn:
                del self._held[slot]
            else:
                self._waiting.remove(turn)
            self._advance()

    def keep(self, slot: int) -> None:
        """What is written in this slot, or waits for it, makes way no more."""
        for turn in (*self._waiting, *self._held.values()):
            turn.kept = turn.kept or turn.slot == slot
        self._advance()

    def _advance(self) -> None:
        """Grant what may be granted, in order; then stop what is in the way of committed work."""
        for turn in sorted(self._waiting, key=lambda turn: turn.yields):
            if turn.slot not in self._held and not (turn.yields and self._committed_before(turn)):
                self._waiting.remove(turn)
                self._held[turn.slot] = turn
                turn.granted.set()
        for turn in self._held.values():
            if turn.yields and self._committed_before(turn):
                turn.make_way()

    def _committed_before(self, turn: Turn) -> bool:
        return any(
            other.priority == "committed" and (self._across_slots or other.slot == turn.slot)
            for other in (*self._waiting, *self._held.values())
        )
