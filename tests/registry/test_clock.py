"""The virtual clock: it never falls, and no gap moves it by more than two seconds."""

import pytest
from redis.asyncio import Redis

from daemons.registry import CallState, Registry
from tests.registry.box import START_MS, TTL_MS, Box

pytestmark = pytest.mark.integration


async def now(box: Box) -> int:
    return (await box.registry.snapshot()).now_ms


async def test_it_starts_with_the_time_and_follows_it_exactly(box: Box) -> None:
    assert await now(box) == START_MS
    for step in (1, 999, 2000):
        before = await now(box)
        box.time.ms += step
        assert await now(box) == before + step


async def test_a_jump_forward_costs_two_seconds(box: Box) -> None:
    await box.up("t:1", "tts")
    fence = await box.grant("c")
    box.time.ms += 10**9
    assert await now(box) == START_MS + 2000
    assert (await box.renew("c", fence)).status == "OK"


async def test_a_jump_back_costs_a_standstill(box: Box) -> None:
    await now(box)
    box.time.ms -= 10**9
    assert await now(box) == START_MS
    box.time.ms += 500
    assert await now(box) == START_MS + 500


async def test_an_outage_extends_leases_instead_of_dropping_them_all(box: Box) -> None:
    await box.up("t:1", "tts")
    await box.grant("c")
    box.time.ms += 60_000
    await box.registry.reap()
    assert await box.state("c") is CallState.HELD
    assert (await box.registry.lookup("c")).expires_ms == START_MS + TTL_MS


async def test_now_ms_may_be_awaited(redis: Redis) -> None:
    async def now_ms() -> int:
        return START_MS

    assert (await Registry(redis, now_ms=now_ms).snapshot()).now_ms == START_MS


async def test_without_now_ms_time_is_the_servers(redis: Redis) -> None:
    seconds, micros = await redis.time()
    drift_ms = (await Registry(redis).snapshot()).now_ms - (seconds * 1000 + micros // 1000)
    assert 0 <= drift_ms < 1000
