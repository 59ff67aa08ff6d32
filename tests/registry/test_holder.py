"""A holder keeps its call through what happens to Redis, and lets go before the lease can be another's."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
from redis.asyncio import Redis

from daemons.clock import FakeClock, SystemClock
from daemons.errors import LeaseLost
from daemons.registry import AcquireStatus, CallState, Holder, Lease, Registry, Renewed, connect
from daemons.registry.holder import GIVE_UP_S, RENEW_S
from ops.redis_server import RedisServer
from tests.waiting import until

pytestmark = pytest.mark.integration

TTL_MS = 15_000


async def worker_up(registry: Registry, worker: str, role: str = "tts", max_fence: int = 0) -> None:
    await registry.register(worker, f"boot-of-{worker}", role, f"http://{worker}", 1, max_fence)
    await registry.heartbeat(worker, f"boot-of-{worker}", ready=True)


async def granted(registry: Registry, call: str = "c") -> Lease:
    answer = await registry.acquire(call, ["tts"], TTL_MS)
    assert answer.status is AcquireStatus.GRANTED
    assert answer.fence is not None
    return Lease(0, call, answer.fence, answer.bundle, 0)


@contextlib.asynccontextmanager
async def keeping(holder: Holder) -> "AsyncIterator[asyncio.Task[None]]":
    task = asyncio.create_task(holder.keep())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def lost(task: "asyncio.Task[None]", within_s: float) -> str:
    with pytest.raises(LeaseLost) as said:
        await asyncio.wait_for(task, within_s)
    return str(said.value)


@pytest.fixture
async def registry(redis: Redis, redis_url: str) -> AsyncIterator[Registry]:
    registry = connect(redis_url)
    await worker_up(registry, "t:1")
    yield registry
    await registry.close()


async def test_it_renews_at_once_and_each_second(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    lease = await granted(registry)
    sent: list[int] = []
    renew = registry.renew

    async def watched(call: str, fence: int) -> Renewed:
        sent.append(clock.now_ns())
        return await renew(call, fence)

    monkeypatch.setattr(registry, "renew", watched)
    async with keeping(Holder(registry, lease, clock)):
        for _ in range(200):
            await asyncio.sleep(0.005)  # the renewal itself is real
            await clock.advance(0.1)
    assert sent[0] == 0
    gaps_s = [(after - before) / 1e9 for before, after in pairwise(sent)]
    assert len(gaps_s) >= 5
    assert all(0.8 <= gap <= 1.5 for gap in gaps_s), gaps_s
    assert len(set(gaps_s)) > 1, "many holders do not come all at once"


async def test_a_released_call_is_lost_at_once_when_it_looks_again(registry: Registry) -> None:
    lease = await granted(registry)
    holder = Holder(registry, lease, SystemClock())
    async with keeping(holder) as task:
        await asyncio.sleep(0.2)
        await registry.release("c", lease.fence)
        holder.look_again()
        assert "no longer gives c" in await lost(task, within_s=2)
    assert (await registry.lookup("c")).state is CallState.NONE, "it was not adopted back"


async def test_a_registry_that_lost_its_data_gets_it_back(registry: Registry, redis: Redis) -> None:
    lease = await granted(registry)
    holder = Holder(registry, lease, SystemClock())
    async with keeping(holder) as task:
        await asyncio.sleep(0.2)
        await redis.flushall()
        holder.look_again()
        await until(lambda: held(registry, lease.fence), within_s=2)
        await worker_up(registry, "t:1", max_fence=lease.fence)
        assert not task.done()
        assert (await registry.acquire("other", ["tts"], TTL_MS)).status is AcquireStatus.FULL


async def held(registry: Registry, fence: int) -> bool:
    standing = await registry.lookup("c")
    return (standing.state, standing.fence) == (CallState.HELD, fence)


async def test_a_slot_that_was_given_away_is_not_fought_over(registry: Registry, redis: Redis) -> None:
    lease = await granted(registry)
    holder = Holder(registry, lease, SystemClock())
    async with keeping(holder) as task:
        await asyncio.sleep(0.2)
        await redis.flushall()
        await worker_up(registry, "t:1", max_fence=lease.fence)
        other = await granted(registry, "other")
        holder.look_again()
        await lost(task, within_s=2)
        assert (await registry.lookup("other")).fence == other.fence


async def test_a_drained_member_is_moving_and_can_be_swapped(registry: Registry) -> None:
    holder = Holder(registry, await granted(registry), SystemClock())
    async with keeping(holder):
        await asyncio.sleep(0.2)
        assert holder.moving == frozenset()
        await registry.drain("t:1", "boot-of-t:1")
        holder.look_again()
        await until(lambda: moving(holder), within_s=2)
        assert await holder.swap("tts") is None, "there is no other"
        assert holder.bundle["tts"].worker == "t:1"
        await worker_up(registry, "t:2")
        member = await holder.swap("tts")
        assert member is not None
        assert holder.bundle["tts"] == member
        assert (member.worker, holder.moving) == ("t:2", frozenset())
        assert member.fence > holder.fence


async def moving(holder: Holder) -> bool:
    return "tts" in holder.moving


@pytest.mark.parametrize("after_s", [0.2, 0.9 * RENEW_S], ids=["just renewed", "about to renew"])
async def test_redis_away_for_eight_seconds_ends_nothing(tmp_path: Path, after_s: float) -> None:
    with RedisServer(tmp_path) as server:
        registry = connect(server.url)
        await worker_up(registry, "t:1")
        holder = Holder(registry, await granted(registry), SystemClock())
        async with keeping(holder) as task:
            await asyncio.sleep(after_s)
            server.kill()
            await asyncio.sleep(7.8)
            assert not task.done()
            server.start()
            await asyncio.sleep(2.5)
            assert not task.done()
            assert await held(registry, holder.fence)
        await registry.close()


async def test_a_redis_that_hangs_is_given_up_in_time(tmp_path: Path) -> None:
    """Half-open: the connection stands and nothing comes. The lease lives 15 s, so nobody else has it yet."""
    with RedisServer(tmp_path) as server:
        registry = connect(server.url)
        await worker_up(registry, "t:1")
        holder = Holder(registry, await granted(registry), SystemClock())
        async with keeping(holder) as task:
            await asyncio.sleep(0.2)
            os.kill(server.pid, signal.SIGSTOP)
            began_s = time.monotonic()
            said = await lost(task, within_s=GIVE_UP_S + 3)
            took_s = time.monotonic() - began_s
        os.kill(server.pid, signal.SIGCONT)
        await registry.close()
    assert f"not renewed for {GIVE_UP_S:g} s" in said
    assert GIVE_UP_S - 4 < took_s <= GIVE_UP_S + 1, took_s
