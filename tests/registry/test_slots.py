"""Slots, and the one counter that their fences come from."""

import pytest

from tests.registry.box import Box

pytestmark = pytest.mark.integration


async def test_each_lease_has_a_slot_of_its_own(box: Box) -> None:
    await box.up("t:1", "tts", slots=3)
    fences = [await box.grant(f"c{i}") for i in range(3)]
    assert [lease.slot for lease in (await box.worker("t:1")).leases] == [0, 1, 2]
    await box.registry.release("c1", fences[1])
    await box.grant("next")
    expected = [("c0", 0), ("next", 1), ("c2", 2)]
    assert [(lease.call, lease.slot) for lease in (await box.worker("t:1")).leases] == expected
    beat = await box.registry.heartbeat("t:1", box.boot("t:1"), ready=True)
    assert [(lease.call, lease.slot) for lease in beat.leases] == expected


async def test_nobody_lowers_the_counter(box: Box) -> None:
    await box.up("t:1", "tts", max_fence=70)
    assert await box.grant("c1") == 71
    await box.up("t:2", "tts", max_fence=3)
    assert await box.grant("c2") == 72


async def test_fences_leap_once_for_each_new_redis(box: Box) -> None:
    await box.up("t:1", "tts", slots=4)
    first = await box.grant("c1")
    assert await box.grant("c2") == first + 1
    await box.redis.hset("{callbox}:sys", "run", "another server's")
    leapt = await box.grant("c3")
    assert leapt >= first + 1_000_000
    assert await box.grant("c4") == leapt + 1
