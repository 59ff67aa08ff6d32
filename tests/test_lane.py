import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from prometheus_client import CollectorRegistry

from daemons.lane import Lane


@pytest.fixture
def metrics() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def lane(metrics: CollectorRegistry) -> AsyncIterator[Lane]:
    lane = Lane("test", 1, metrics)
    yield lane
    await asyncio.to_thread(lane.close)


async def test_a_step_runs_beside_the_loop_and_gives_its_result(lane: Lane) -> None:
    assert await lane.run(lambda _: threading.current_thread().name) == "test-0"


async def test_what_a_step_raises_is_raised_to_who_waits(lane: Lane) -> None:
    def fail(_: threading.Event) -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        await lane.run(fail)
    assert await lane.run(lambda _: 1) == 1


async def test_committed_work_goes_before_speculative_work(lane: Lane) -> None:
    order: list[str] = []
    busy = threading.Event()
    first = asyncio.create_task(lane.run(lambda _: busy.wait(5)))
    waiting = [
        asyncio.create_task(lane.run(lambda _: order.append("speculative"), "speculative")),
        asyncio.create_task(lane.run(lambda _: order.append("committed"), "committed")),
    ]
    await asyncio.sleep(0.05)
    busy.set()
    await asyncio.gather(first, *waiting)
    assert order == ["committed", "speculative"]


async def test_a_lane_s_threads_and_those_started_in_them_stand_behind_the_others(metrics: CollectorRegistry) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def step(_: threading.Event) -> tuple[int, int]:
        of_engine: list[int] = []
        engine = threading.Thread(target=lambda: of_engine.append(niceness()))
        engine.start()
        engine.join()
        return niceness(), of_engine[0]

    here = niceness()
    lane = Lane("behind", 1, metrics, niceness=3)
    assert await lane.run(step) == (here + 3, here + 3)
    assert niceness() == here
    await asyncio.to_thread(lane.close)


@pytest.mark.parametrize("cancels", [1, 3])
async def test_a_cancelled_step_is_told_and_has_stopped_when_its_caller_leaves(
    lane: Lane, metrics: CollectorRegistry, cancels: int
) -> None:
    stopped = threading.Event()

    def until_cancelled(cancelled: threading.Event) -> None:
        assert cancelled.wait(5)
        time.sleep(0.05)
        stopped.set()

    task = asyncio.create_task(lane.run(until_cancelled))
    await asyncio.sleep(0.05)
    for _ in range(cancels):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.is_set()
    assert metrics.get_sample_value("callbox_aborted_steps_total") == 1
    assert metrics.get_sample_value("callbox_cancel_to_stop_seconds_count") == 1


async def test_a_step_cancelled_before_its_turn_never_runs_and_holds_nobody_up(lane: Lane) -> None:
    ran: list[int] = []
    busy = threading.Event()
    first = asyncio.create_task(lane.run(lambda _: busy.wait(5)))
    second = asyncio.create_task(lane.run(lambda _: ran.append(2)))
    await asyncio.sleep(0.05)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(second, 1)  # the first still runs
    busy.set()
    await first
    assert await lane.run(lambda _: 3) == 3
    assert ran == []


async def test_others_come_in_between_the_items_of_an_iterator(lane: Lane) -> None:
    order: list[str] = []

    def items(_: threading.Event) -> Iterator[int]:
        for number in range(3):
            order.append(f"item {number}")
            yield number

    async for number in lane.steps(items, "speculative"):
        between = f"between {number}"
        await lane.run(lambda _: order.append(between))  # noqa: B023 - awaited in the same round
    assert order == ["item 0", "between 0", "item 1", "between 1", "item 2", "between 2"]


async def test_an_abandoned_iterator_makes_no_more_items(lane: Lane) -> None:
    made: list[int] = []

    def items(_: threading.Event) -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    steps = lane.steps(items)
    assert await anext(steps) == 0
    await steps.aclose()
    await lane.run(lambda _: None)
    assert made == [0]
