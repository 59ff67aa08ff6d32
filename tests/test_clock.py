import asyncio
import time

import pytest

from daemons.clock import Clock, FakeClock, SystemClock

SECOND_NS = 10**9


async def sleep_and_tell(clock: Clock, seconds: float, woken: list[float]) -> None:
    await clock.sleep(seconds)
    woken.append(clock.now_ns() / SECOND_NS)


async def test_the_system_clock_is_the_monotonic_one_that_other_processes_read() -> None:
    before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now_ns = SystemClock().now_ns()
    assert before_ns <= now_ns <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)


async def test_fake_time_stands_still_until_it_is_advanced() -> None:
    clock, woken = FakeClock(5 * SECOND_NS), list[float]()
    sleeper = asyncio.create_task(sleep_and_tell(clock, 1.0, woken))
    await clock.advance(0.999)
    assert (clock.now_ns(), woken) == (5_999_000_000, [])
    await clock.advance(0.001)
    assert woken == [6.0]
    await sleeper


async def test_sleepers_wake_at_their_own_times_in_order() -> None:
    clock, woken = FakeClock(), list[float]()
    async with asyncio.TaskGroup() as tasks:
        for seconds in (3.0, 1.0, 2.0):
            tasks.create_task(sleep_and_tell(clock, seconds, woken))
        await clock.advance(10)
    assert woken == [1.0, 2.0, 3.0]
    assert clock.now_ns() == 10 * SECOND_NS


async def test_a_sleeper_that_sleeps_again_wakes_again_within_one_advance() -> None:
    clock, woken = FakeClock(), list[float]()

    async def tick() -> None:
        for _ in range(3):
            await sleep_and_tell(clock, 0.5, woken)

    ticking = asyncio.create_task(tick())
    await clock.advance(2)
    assert woken == [0.5, 1.0, 1.5]
    await ticking


async def test_a_cancelled_sleeper_disturbs_nobody() -> None:
    clock, woken = FakeClock(), list[float]()
    gone = asyncio.create_task(sleep_and_tell(clock, 1.0, woken))
    stays = asyncio.create_task(sleep_and_tell(clock, 2.0, woken))
    await clock.advance(0.5)
    gone.cancel()
    await clock.advance(2)
    assert woken == [2.0]
    await stays


async def test_sleeping_for_no_time_still_lets_others_run() -> None:
    others_turn = asyncio.Event()
    asyncio.get_running_loop().call_soon(others_turn.set)
    await FakeClock().sleep(0)
    assert others_turn.is_set()


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()])
async def test_what_happens_in_time_is_told_at_once(clock: Clock) -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(clock.happens(event, 60))
    await asyncio.sleep(0)
    event.set()
    assert await asyncio.wait_for(waiting, 10)
    assert await clock.happens(event, 60), "and what has happened already"


async def test_what_does_not_happen_is_waited_for_no_longer() -> None:
    assert not await SystemClock().happens(asyncio.Event(), 0.01)
    clock = FakeClock()
    waiting = asyncio.create_task(clock.happens(asyncio.Event(), 2))
    await clock.advance(1.9)
    assert not waiting.done()
    await clock.advance(0.1)
    assert not await waiting
