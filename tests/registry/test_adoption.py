"""What a holder may give back to a registry that lost its data, and what it may not."""

from dataclasses import replace

import pytest

from daemons.registry import Acquired, AcquireStatus, AdoptStatus, CallState, Member, RenewStatus
from tests.registry.box import TTL_MS, Box

pytestmark = pytest.mark.integration


def member_of(worker: str, boot: str, fence: int) -> Member:
    return Member(worker, f"http://{worker}", slot=0, boot=boot, fence=fence)


async def test_adopt_prolongs_what_is_held_already(box: Box) -> None:
    await box.up("t:1", "tts")
    granted = await box.acquire("c")
    assert granted.fence is not None
    await box.pass_time(10_000, beating=("t:1",))
    assert await box.registry.adopt("c", granted.fence, granted.bundle, TTL_MS) is AdoptStatus.OK
    await box.pass_time(TTL_MS - 1, beating=("t:1",))
    assert await box.state("c") is CallState.HELD


async def test_adopt_never_replaces_another_grant_of_the_call(box: Box) -> None:
    await box.up("t:1", "tts", max_fence=40)
    granted = await box.acquire("c")
    assert granted.fence is not None
    for stranger in (granted.fence - 1, granted.fence + 1):
        assert await box.registry.adopt("c", stranger, granted.bundle, TTL_MS) is AdoptStatus.TAKEN
    assert (await box.renew("c", granted.fence)).status is RenewStatus.OK


async def test_an_ended_grant_is_remembered_for_a_minute(box: Box) -> None:
    await box.up("t:1", "tts")
    granted = await box.acquire("c")
    assert granted.fence is not None
    await box.registry.release("c", granted.fence)
    await box.pass_time(59_000, beating=("t:1",))
    assert await box.registry.adopt("c", granted.fence, granted.bundle, TTL_MS) is AdoptStatus.TAKEN


async def test_adopt_leaves_a_member_that_is_gone_to_swap(box: Box) -> None:
    boot = await box.up("t:1", "tts")
    await box.registry.deregister("t:1", boot)
    assert await box.registry.adopt("c", 8, {"tts": member_of("t:1", boot, 8)}, TTL_MS) is AdoptStatus.OK
    assert (await box.worker("t:1")).leases == ()
    assert (await box.renew("c", 8)).moving == ("tts",)


async def test_adopt_leaves_a_member_on_a_retired_boot_to_swap(box: Box) -> None:
    retired = await box.up("t:1", "tts")
    await box.registry.deregister("t:1", await box.up("t:1", "tts"))
    await box.redis.hincrby("{callbox}:sys", "v", 24 * 3600 * 1000 + 1)
    assert (await box.registry.snapshot()).workers == (), "its successor is forgotten, its own end is not"
    assert await box.registry.adopt("c", 8, {"tts": member_of("t:1", retired, 8)}, TTL_MS) is AdoptStatus.OK
    assert (await box.registry.snapshot()).workers == ()
    assert (await box.registry.lookup("c")).state is CallState.HELD


async def test_adopt_gives_back_what_was_reserved_for_the_call_meanwhile(box: Box) -> None:
    await box.up("t:1", "tts")
    blocker = await box.grant("blocker")
    await box.acquire("c")
    await box.registry.release("blocker", blocker)
    assert await box.state("c") is CallState.RESERVED
    assert await box.registry.adopt("c", 8, {"tts": member_of("t:2", "b", 8)}, TTL_MS) is AdoptStatus.OK
    assert (await box.worker("t:1")).leases == ()
    assert [lease.call for lease in (await box.worker("t:2")).leases] == ["c"]


async def test_an_expected_worker_serves_nobody_yet(box: Box) -> None:
    await box.registry.adopt("c", 8, {"tts": member_of("t:1", "b", 8)}, TTL_MS)
    assert await box.acquire("other") == Acquired(AcquireStatus.UNAVAILABLE, role="tts")
    assert (await box.worker("t:1")).slots == 1, "as many as are known of"


async def test_adopt_leaves_a_slot_that_the_worker_does_not_have_to_swap(box: Box) -> None:
    boot = await box.up("t:1", "tts", slots=1)
    second = replace(member_of("t:1", boot, 8), slot=1)
    assert await box.registry.adopt("c", 8, {"tts": second}, TTL_MS) is AdoptStatus.OK
    assert (await box.worker("t:1")).leases == ()
    assert (await box.renew("c", 8)).moving == ("tts",)


async def test_adopt_takes_no_slot_below_its_highest_fence(box: Box) -> None:
    """The registry lost its data, and the slot has been another's since: free again is not free for an older lease."""
    await box.up("t:1", "tts")
    granted = await box.acquire("c")
    assert granted.fence is not None
    await box.redis.flushall()
    await box.registry.register("t:1", box.boot("t:1"), "tts", "http://t:1", 1)
    await box.registry.heartbeat("t:1", box.boot("t:1"), ready=True)
    for call in ("later", "still later"):
        await box.registry.release(call, await box.grant(call))
    assert await box.registry.adopt("c", granted.fence, granted.bundle, TTL_MS) is AdoptStatus.TAKEN
    assert await box.state("c") is CallState.NONE
