"""The faults of the demo that this registry exists to rule out, as far as they are the registry's."""

import asyncio

import pytest

from daemons.registry import AcquireStatus, CallState, RegisterStatus, RenewStatus, WorkerState, connect
from tests.registry.box import TTL_MS, Box

pytestmark = pytest.mark.integration


async def test_register_over_busy_keeps_the_lease(box: Box) -> None:
    """The demo's 30-second register loop rebuilt the record and wiped BUSY in mid-call."""
    boot = await box.up("t:1", "tts")
    fence = await box.grant("c")
    for _ in range(4):
        await box.pass_time(7000, beating=("t:1",), holding={"c": fence})
        assert await box.registry.register("t:1", boot, "tts", "http://t:1", 1) is RegisterStatus.REFRESHED
    record = await box.worker("t:1")
    assert (record.busy, record.leases[0].call) == (True, "c")
    assert (await box.acquire("other")).status is AcquireStatus.QUEUED


async def test_two_logins_never_both_win(box: Box, redis_url: str) -> None:
    await box.up("t:1", "tts")
    clients = [connect(redis_url) for _ in range(8)]
    try:
        answers = await asyncio.gather(*(c.acquire(f"c{i}", ["tts"], TTL_MS, 0) for i, c in enumerate(clients)))
    finally:
        for client in clients:
            await client.close()
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [AcquireStatus.FULL] * 7 + [AcquireStatus.GRANTED]


async def test_a_probe_erases_no_fresh_lease(box: Box) -> None:
    """The demo read a record, probed, and wrote it back: a lease granted in between was gone."""
    boot = await box.up("t:1", "tts")
    fence = await box.grant("c")
    for ok in (True, False, False, False, True, True):
        await box.registry.probe("t:1", boot, ok)
        assert (await box.worker("t:1")).leases[0].fence == fence


async def test_a_stolen_lock_is_noticed_by_its_old_holder(box: Box) -> None:
    await box.up("t:1", "tts")
    old = await box.grant("c")
    await box.pass_time(TTL_MS, beating=("t:1",))
    new = await box.grant("c")
    assert (await box.renew("c", old)).status is RenewStatus.LOST
    assert (await box.renew("c", new)).status is RenewStatus.OK


async def test_one_failed_probe_drops_no_call(box: Box) -> None:
    boot = await box.up("t:1", "tts")
    fence = await box.grant("c")
    assert (await box.registry.probe("t:1", boot, ok=False)).state is WorkerState.AVAILABLE
    assert (await box.renew("c", fence)).moving == ()


async def test_a_stranger_frees_nobodys_slot(box: Box) -> None:
    await box.up("t:1", "tts")
    fence = await box.grant("c")
    await box.registry.release("c", fence + 1)
    await box.registry.release("other", fence)
    await box.registry.cancel("c")
    assert await box.state("c") is CallState.HELD


async def test_a_release_frees_at_once(box: Box) -> None:
    await box.up("t:1", "tts")
    await box.registry.release("c", await box.grant("c"))
    assert (await box.acquire("next")).status is AcquireStatus.GRANTED
