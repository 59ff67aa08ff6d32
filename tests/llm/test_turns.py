"""Who goes first at the engine, with nothing but the rule."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest

from daemons.errors import AtCapacity
from daemons.llm import turns as turns_module
from daemons.llm.turns import Turn, Turns
from daemons.wire import Priority


class Workplace:
    """Requests that hold their turn until they are told to end, or must make way."""

    def __init__(self, *, across_slots: bool = True) -> None:
        self.turns = Turns(across_slots=across_slots)
        self.begun: list[str] = []
        self.made_way: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, slot: int, priority: Priority) -> None:
        self._tasks[name] = asyncio.create_task(self._work(name, slot, priority))
        await settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
            with suppress(asyncio.CancelledError):
                await self._tasks[name]
        await settle()

    def result(self, name: str) -> asyncio.Task[None]:
        return self._tasks[name]

    async def _work(self, name: str, slot: int, priority: Priority) -> None:
        async with self.turns.turn(slot, priority) as turn:
            self.begun.append(name)
            stopped = asyncio.Event()
            turn.stopped_by(stopped.set)
            await stopped.wait()
            self.made_way.append(name)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_slot_serves_one_at_a_time_in_order() -> None:
    work = Workplace()
    for name in ("one", "two", "three"):
        await work.ask(name, 0, "committed")
    assert work.begun == ["one"]
    await work.end("one")
    assert work.begun == ["one", "two"]
    await work.end("two", "three")
    assert work.made_way == []


async def test_committed_work_of_several_slots_goes_side_by_side() -> None:
    work = Workplace()
    await work.ask("one", 0, "committed")
    await work.ask("two", 1, "committed")
    assert work.begun == ["one", "two"]
    await work.end("one", "two")


@pytest.mark.parametrize("slot", [0, 1])
async def test_committed_work_stops_speculative_work_in_every_slot(slot: int) -> None:
    work = Workplace()
    await work.ask("guess", 0, "speculative")
    await work.ask("said", slot, "committed")
    assert work.made_way == ["guess"]
    assert work.begun == ["guess", "said"]
    await work.end("said")


async def test_slots_that_share_nothing_disturb_each_other_only_within_a_slot() -> None:
    work = Workplace(across_slots=False)
    await work.ask("guess", 0, "speculative")
    await work.ask("elsewhere", 1, "committed")
    assert work.made_way == []
    await work.ask("here", 0, "committed")
    assert work.made_way == ["guess"]
    await work.end("elsewhere", "here")


async def test_speculative_work_waits_until_no_committed_work_is_left() -> None:
    work = Workplace()
    await work.ask("first", 0, "committed")
    await work.ask("guess", 1, "speculative")
    await work.ask("second", 0, "committed")
    await work.end("first")
    assert work.begun == ["first", "second"]
    await work.end("second")
    assert work.begun == ["first", "second", "guess"]
    await work.end("guess")


async def test_committed_work_passes_speculative_work_that_waits_in_its_slot() -> None:
    work = Workplace()
    await work.ask("first", 0, "committed")
    await work.ask("guess", 0, "speculative")
    await work.ask("second", 0, "committed")
    await work.end("first")
    assert work.begun == ["first", "second"]
    await work.end("second", "guess")


async def test_who_leaves_the_queue_holds_nobody_up() -> None:
    work = Workplace()
    await work.ask("first", 0, "committed")
    await work.ask("second", 0, "committed")
    await work.ask("third", 0, "committed")
    await work.end("second")
    await work.end("first")
    assert work.begun == ["first", "third"]
    await work.end("third")


async def test_the_patience_of_speculative_work_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "PATIENCE_S", 0.05)
    work = Workplace()
    await work.ask("first", 0, "committed")
    await work.ask("guess", 1, "speculative")
    with pytest.raises(AtCapacity, match="try again"):
        await asyncio.wait_for(work.result("guess"), 5)
    await work.end("first")
    await work.ask("after", 1, "speculative")
    assert work.begun == ["first", "after"]
    await work.end("after")


async def test_who_must_make_way_before_he_said_how_is_stopped_when_he_says_it() -> None:
    stops: list[Callable[[], object]] = []
    turn = Turn(0, "speculative")
    turn.make_way()
    turn.stopped_by(lambda: stops.append(print))
    assert len(stops) == 1


async def test_what_is_kept_makes_way_for_nobody_and_holds_nobody_up() -> None:
    work = Workplace()
    await work.ask("answer", 0, "speculative")
    work.turns.keep(0)
    await work.ask("said", 1, "committed")
    assert work.begun == ["answer", "said"]
    await work.end("said")
    await work.ask("guess", 1, "speculative")
    assert work.begun == ["answer", "said", "guess"]
    assert work.made_way == []
    await work.end("answer", "guess")


async def test_what_waits_and_is_kept_begins() -> None:
    work = Workplace()
    await work.ask("said", 0, "committed")
    await work.ask("answer", 1, "speculative")
    await work.ask("guess", 2, "speculative")
    work.turns.keep(1)
    await settle()
    assert work.begun == ["said", "answer"]
    await work.end("answer", "said", "guess")


async def test_what_comes_later_in_a_slot_is_not_kept() -> None:
    work = Workplace()
    await work.ask("answer", 0, "speculative")
    work.turns.keep(0)
    await work.end("answer")
    await work.ask("guess", 0, "speculative")
    await work.ask("said", 1, "committed")
    assert work.made_way == ["guess"]
    await work.end("said")
