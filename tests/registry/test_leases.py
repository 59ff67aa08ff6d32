"""acquire, renew, swap, adopt, release: what a call holds and how long."""

from dataclasses import replace

import pytest

from daemons.errors import BadRequest
from daemons.registry import (
    Acquired,
    AcquireStatus,
    AdoptStatus,
    CallState,
    HeartbeatStatus,
    Member,
    RegisterStatus,
    ReleaseStatus,
    Renewed,
    RenewStatus,
    Swapped,
    SwapStatus,
    WorkerState,
    keys,
)
from tests.registry.box import TTL_MS, Box

pytestmark = pytest.mark.integration
ROLES = ("agent", "stt", "llm", "tts")


async def everything_up(box: Box, slots: int = 1) -> None:
    for role in ROLES:
        await box.up(f"{role}:1", role, slots)


async def test_a_grant_names_a_member_for_each_role(box: Box) -> None:
    await everything_up(box)
    answer = await box.acquire("c", *ROLES)
    assert answer.status is AcquireStatus.GRANTED
    assert set(answer.bundle) == set(ROLES)
    member = answer.bundle["stt"]
    assert (member.worker, member.addr, member.slot, member.boot) == ("stt:1", "http://stt:1", 0, box.boot("stt:1"))
    assert {member.fence for member in answer.bundle.values()} == {answer.fence}


async def test_asked_again_the_same_answer_and_no_longer_lease(box: Box) -> None:
    await everything_up(box, slots=2)
    first = await box.acquire("c", *ROLES)
    box.time.ms += 1000
    before = await box.registry.lookup("c")
    assert await box.acquire("c", *ROLES) == first
    assert await box.registry.lookup("c") == before


async def test_all_roles_or_none(box: Box) -> None:
    await everything_up(box)
    await box.grant("first", "llm")
    assert await box.acquire("c", *ROLES) == Acquired(AcquireStatus.QUEUED, position=1)
    assert all(not worker.leases for worker in (await box.registry.snapshot()).workers if worker.role != "llm")


async def test_unavailable_names_the_role_and_queues_nobody(box: Box) -> None:
    await box.up("stt:1", "stt")
    assert await box.acquire("c", "stt", "tts-lab") == Acquired(AcquireStatus.UNAVAILABLE, role="tts-lab")
    assert await box.state("c") is CallState.NONE


async def test_any_name_is_a_role(box: Box) -> None:
    await box.up("lab:1", "tts-lab")
    assert (await box.acquire("c", "tts-lab")).bundle["tts-lab"].worker == "lab:1"


@pytest.mark.parametrize("roles", [[], ["tts", "tts"]])
async def test_roles_must_be_some_and_differ(box: Box, roles: list[str]) -> None:
    with pytest.raises(BadRequest):
        await box.registry.acquire("c", roles)


async def test_the_least_recently_granted_worker_is_next(box: Box) -> None:
    for worker in ("t:1", "t:2", "t:3"):
        await box.up(worker, "tts", slots=2)
    order = [(await box.acquire(f"c{i}")).bundle["tts"].worker for i in range(6)]
    assert order == ["t:1", "t:2", "t:3"] * 2


async def test_a_worker_that_restarts_is_not_first_in_line_again(box: Box) -> None:
    await box.up("t:1", "tts")
    await box.grant("c1")
    await box.up("t:1", "tts")
    await box.up("t:2", "tts")
    assert (await box.acquire("c2")).bundle["tts"].worker == "t:2"


async def test_a_lease_ends_when_nobody_renews_it(box: Box) -> None:
    await box.up("t:1", "tts")
    fence = await box.grant("c")
    await box.pass_time(10_000, beating=("t:1",))
    assert await box.renew("c", fence) == Renewed(RenewStatus.OK)
    await box.pass_time(TTL_MS - 1, beating=("t:1",))
    assert await box.state("c") is CallState.HELD
    await box.pass_time(1, beating=("t:1",))
    assert await box.renew("c", fence) == Renewed(RenewStatus.LOST)
    assert (await box.worker("t:1")).leases == ()


async def test_whoever_asks_sees_until_when_a_lease_was_renewed(box: Box) -> None:
    boot = await box.up("t:1", "tts")
    fence = await box.grant("c")
    box.time.ms += 1500
    await box.renew("c", fence)
    until_ms = box.time.ms + TTL_MS
    assert (await box.registry.lookup("c")).expires_ms == until_ms
    assert (await box.registry.heartbeat("t:1", boot, ready=True)).leases[0].expires_ms == until_ms


async def test_roles_come_in_one_order(box: Box) -> None:
    await everything_up(box)
    granted = await box.acquire("c", *ROLES)
    assert granted.fence is not None
    for role in ("tts", "llm", "stt"):
        await box.registry.drain(f"{role}:1", box.boot(f"{role}:1"))
    assert (await box.renew("c", granted.fence)).moving == ("llm", "stt", "tts")
    await box.redis.flushall()
    await box.registry.adopt("c", granted.fence, granted.bundle, TTL_MS)
    assert (await box.registry.snapshot()).calls[0].roles == tuple(sorted(ROLES))


async def test_a_swap_renews_also_when_it_is_asked_for_again(box: Box) -> None:
    for worker in ("t:1", "t:2"):
        await box.up(worker, "tts")
    fence = await box.grant("c")
    for _ in range(3):
        await box.pass_time(10_000, beating=("t:1", "t:2"))
        assert (await box.registry.swap("c", fence, "tts", TTL_MS)).status is SwapStatus.OK
    assert await box.state("c") is CallState.HELD


async def test_an_agents_crash_leaks_no_slot_for_more_than_16_s(box: Box) -> None:
    await everything_up(box)
    await box.grant("c", *ROLES)
    others = tuple(f"{role}:1" for role in ROLES if role != "agent")
    await box.pass_time(16_000, beating=others)
    assert all(not worker.leases for worker in (await box.registry.snapshot()).workers)


async def test_a_workers_crash_leaks_no_slot_for_more_than_31_s(box: Box) -> None:
    await everything_up(box)
    fence = await box.grant("c", *ROLES)
    await box.pass_time(31_000, beating=("agent:1", "stt:1", "llm:1"), holding={"c": fence})
    assert (await box.worker("tts:1")).leases == ()
    assert await box.renew("c", fence) == Renewed(RenewStatus.OK, ("tts",))


async def test_only_the_owner_renews_or_releases(box: Box) -> None:
    await box.up("t:1", "tts")
    fence = await box.grant("c")
    for stranger in (fence - 1, fence + 1):
        assert await box.renew("c", stranger) == Renewed(RenewStatus.LOST)
        assert await box.registry.release("c", stranger) is ReleaseStatus.OK
        assert (await box.registry.swap("c", stranger, "tts", TTL_MS)).status is SwapStatus.LOST
    assert len((await box.worker("t:1")).leases) == 1
    assert await box.registry.release("c", fence) is ReleaseStatus.OK
    assert await box.registry.release("c", fence) is ReleaseStatus.OK
    assert (await box.worker("t:1")).leases == ()
    assert await box.grant("c") > fence


async def test_swap_replaces_one_member_under_a_higher_fence(box: Box) -> None:
    await everything_up(box)
    await box.up("tts:2", "tts")
    granted = await box.acquire("c", *ROLES)
    assert granted.fence is not None
    old = granted.bundle["tts"]
    await box.registry.drain(old.worker, old.boot)
    assert (await box.renew("c", granted.fence)).moving == ("tts",)
    answer = await box.registry.swap("c", granted.fence, "tts", TTL_MS)
    assert answer.status is SwapStatus.OK
    assert answer.member is not None
    assert answer.member.worker == "tts:2"
    assert answer.member.fence > old.fence
    assert await box.renew("c", granted.fence) == Renewed(RenewStatus.OK)
    assert (await box.worker("tts:1")).leases == ()
    expected = dict(granted.bundle) | {"tts": answer.member}
    assert (await box.registry.lookup("c")).bundle == expected
    leases = (await box.registry.heartbeat("tts:2", box.boot("tts:2"), ready=True)).leases
    assert [lease.fence for lease in leases] == [answer.member.fence]


async def test_a_lost_reply_to_swap_costs_nothing(box: Box) -> None:
    for worker in ("t:1", "t:2", "t:3"):
        await box.up(worker, "tts")
    fence = await box.grant("c")
    first = await box.registry.swap("c", fence, "tts", TTL_MS)
    assert await box.registry.swap("c", fence, "tts", TTL_MS) == first
    await box.renew("c", fence)
    second = await box.registry.swap("c", fence, "tts", TTL_MS)
    assert second.member is not None
    assert first.member is not None
    assert second.member.worker != first.member.worker


async def test_a_swapped_in_member_that_dies_is_replaced_at_once(box: Box) -> None:
    for worker in ("t:1", "t:2", "t:3"):
        await box.up(worker, "tts")
    fence = await box.grant("c")
    first = (await box.registry.swap("c", fence, "tts", TTL_MS)).member
    assert first is not None
    await box.registry.deregister(first.worker, first.boot)
    second = (await box.registry.swap("c", fence, "tts", TTL_MS)).member
    assert second is not None
    assert second.worker not in (first.worker, "t:1")


async def test_swap_never_gives_the_same_boot_again(box: Box) -> None:
    await box.up("t:1", "tts", slots=2)
    assert await box.registry.swap("c", await box.grant("c"), "tts", TTL_MS) == Swapped(SwapStatus.NONE)


async def test_a_swapped_in_member_that_drains_is_replaced_at_once(box: Box) -> None:
    for worker in ("t:1", "t:2", "t:3"):
        await box.up(worker, "tts")
    fence = await box.grant("c")
    await box.registry.swap("c", fence, "tts", TTL_MS)
    await box.registry.drain("t:2", box.boot("t:2"))
    member = (await box.registry.swap("c", fence, "tts", TTL_MS)).member
    assert member is not None
    assert member.worker == "t:3"


async def test_swap_takes_the_successor_of_a_dead_worker(box: Box) -> None:
    await box.up("t:1", "tts")
    fence = await box.grant("c")
    assert await box.registry.swap("c", fence, "tts", TTL_MS) == Swapped(SwapStatus.NONE)
    successor = await box.up("t:1", "tts")
    member = (await box.registry.swap("c", fence, "tts", TTL_MS)).member
    assert member is not None
    assert member.boot == successor


async def test_swap_comes_before_the_queue(box: Box) -> None:
    await box.up("s:1", "stt")
    await box.up("t:1", "tts")
    fence = await box.grant("c1", "stt", "tts")
    await box.up("t:2", "tts")
    assert (await box.acquire("c2", "stt", "tts")).status is AcquireStatus.QUEUED
    member = (await box.registry.swap("c1", fence, "tts", TTL_MS)).member
    assert member is not None
    assert member.worker == "t:2"


async def test_swap_of_a_role_that_the_call_does_not_have_is_none(box: Box) -> None:
    await box.up("t:1", "tts")
    await box.up("s:1", "stt")
    assert await box.registry.swap("c", await box.grant("c"), "stt", TTL_MS) == Swapped(SwapStatus.NONE)


async def test_a_registry_that_lost_its_data_is_told_what_is_held(box: Box) -> None:
    await everything_up(box)
    granted = await box.acquire("c", *ROLES)
    assert granted.fence is not None
    await box.redis.flushall()
    assert (await box.renew("c", granted.fence)).status is RenewStatus.LOST
    boot = box.boot("tts:1")
    assert (await box.registry.heartbeat("tts:1", boot, ready=True)).status is HeartbeatStatus.UNKNOWN
    await box.registry.register("tts:1", boot, "tts", "http://tts:1", 1, max_fence=granted.fence)
    for _ in range(2):
        assert await box.registry.adopt("c", granted.fence, granted.bundle, TTL_MS) is AdoptStatus.OK
    assert await box.renew("c", granted.fence) == Renewed(RenewStatus.OK)

    # The others come back after the holder: expected until then, and not one slot is given twice.
    assert (await box.worker("stt:1")).state is WorkerState.EXPECTED
    assert (await box.registry.heartbeat("stt:1", box.boot("stt:1"), ready=True)).status is HeartbeatStatus.UNKNOWN
    for role in ("agent", "stt", "llm"):
        boot = box.boot(f"{role}:1")
        answer = await box.registry.register(f"{role}:1", boot, role, f"http://{role}:1", 1, granted.fence)
        assert answer is RegisterStatus.CREATED
        leases = (await box.registry.heartbeat(f"{role}:1", boot, ready=True)).leases
        assert [lease.call for lease in leases] == ["c"]
    await box.registry.heartbeat("tts:1", box.boot("tts:1"), ready=True)
    assert await box.renew("c", granted.fence) == Renewed(RenewStatus.OK)
    assert (await box.acquire("other", *ROLES)).status is AcquireStatus.QUEUED


async def test_fences_survive_a_loss_of_data(box: Box) -> None:
    await box.up("t:1", "tts")
    for i in range(5):
        fence = await box.grant(f"c{i}")
        await box.registry.release(f"c{i}", fence)
    await box.redis.flushall()
    await box.up("t:1", "tts", max_fence=fence)
    assert await box.grant("after") > fence


async def test_adopt_never_takes_a_slot_that_another_holds(box: Box) -> None:
    await box.up("t:1", "tts")
    granted = await box.acquire("c1")
    assert granted.fence is not None
    await box.redis.flushall()
    await box.registry.register("t:1", box.boot("t:1"), "tts", "http://t:1", 1)
    await box.registry.heartbeat("t:1", box.boot("t:1"), ready=True)
    await box.grant("c2")
    assert await box.registry.adopt("c1", granted.fence, granted.bundle, TTL_MS) is AdoptStatus.TAKEN
    assert await box.state("c1") is CallState.NONE


async def test_a_grant_that_the_registry_ended_is_not_adopted_back(box: Box) -> None:
    """Its owner hung up, or it ran out: a holder that was not told must not bring it back to life."""
    await box.up("t:1", "tts")
    released, expired = await box.acquire("released"), None
    assert released.fence is not None
    await box.registry.release("released", released.fence)
    expired = await box.acquire("expired")
    assert expired.fence is not None
    await box.pass_time(TTL_MS + 1000, beating=("t:1",))
    for call, granted in (("released", released), ("expired", expired)):
        assert await box.registry.adopt(call, granted.fence or 0, granted.bundle, TTL_MS) is AdoptStatus.TAKEN
        assert await box.state(call) is CallState.NONE
    assert await box.grant("released") > expired.fence, "the call itself may come again"


async def test_ended_grants_are_forgotten(box: Box) -> None:
    await box.up("t:1", "tts")
    for i in range(5):
        await box.registry.release(f"c{i}", await box.grant(f"c{i}"))
    assert await box.redis.zcard(keys.ENDED) == 5
    await box.pass_time(61_000, beating=("t:1",))
    assert await box.redis.zcard(keys.ENDED) == 0


async def test_adopt_leaves_a_member_that_restarted_to_swap(box: Box) -> None:
    await everything_up(box)
    granted = await box.acquire("c", *ROLES)
    assert granted.fence is not None
    await box.redis.flushall()
    await box.up("tts:1", "tts")
    assert await box.registry.adopt("c", granted.fence, granted.bundle, TTL_MS) is AdoptStatus.OK
    assert (await box.renew("c", granted.fence)).moving == ("tts",)
    assert (await box.registry.swap("c", granted.fence, "tts", TTL_MS)).status is SwapStatus.OK
    assert (await box.renew("c", granted.fence)).moving == ()


async def test_adopt_by_an_agent_that_has_a_successor_is_refused(box: Box) -> None:
    await everything_up(box)
    granted = await box.acquire("c", *ROLES)
    assert granted.fence is not None
    await box.redis.flushall()
    await box.up("agent:1", "agent")
    assert await box.registry.adopt("c", granted.fence, granted.bundle, TTL_MS) is AdoptStatus.TAKEN


async def test_a_worker_that_was_expected_and_never_came_owns_nothing(box: Box) -> None:
    await box.up("t:1", "tts")
    granted = await box.acquire("c")
    assert granted.fence is not None
    await box.redis.flushall()
    await box.registry.adopt("c", granted.fence, granted.bundle, TTL_MS)
    await box.pass_time(31_000, holding={"c": granted.fence})
    assert (await box.worker("t:1")).state is WorkerState.GONE
    assert (await box.renew("c", granted.fence)).moving == ("tts",)


async def test_an_expected_worker_that_restarted_meanwhile_loses_the_lease(box: Box) -> None:
    await box.up("t:1", "tts", slots=2)
    granted = await box.acquire("c")
    assert granted.fence is not None
    await box.redis.flushall()
    second = {"tts": replace(granted.bundle["tts"], slot=1)}
    await box.registry.adopt("c", granted.fence, granted.bundle, TTL_MS)
    await box.registry.adopt("d", granted.fence, second, TTL_MS)
    assert ((await box.worker("t:1")).slots, len((await box.worker("t:1")).leases)) == (2, 2)
    await box.up("t:1", "tts", slots=2)
    assert (await box.worker("t:1")).leases == ()
    assert (await box.renew("c", granted.fence)).moving == ("tts",)


async def test_an_adopted_slot_that_the_worker_does_not_have_is_revoked(box: Box) -> None:
    member = Member("t:1", "http://t:1", slot=1, boot="b", fence=8)
    await box.registry.adopt("c", 8, {"tts": member}, TTL_MS)
    await box.registry.register("t:1", "b", "tts", "http://t:1", 1)
    assert (await box.worker("t:1")).leases == ()
    assert (await box.renew("c", 8)).moving == ("tts",)


@pytest.mark.parametrize(("call_fence", "member_fence"), [(50, 8), (8, 50)])
async def test_what_is_adopted_raises_the_counter(box: Box, call_fence: int, member_fence: int) -> None:
    member = Member("t:1", "http://t:1", slot=0, boot="b", fence=member_fence)
    await box.registry.adopt("c", call_fence, {"tts": member}, TTL_MS)
    await box.up("t:2", "tts")
    assert await box.grant("d") == 51


async def test_lookup_asks_for_nothing(box: Box) -> None:
    await box.up("t:1", "tts")
    fence = await box.grant("c1")
    assert (await box.registry.lookup("c1")).fence == fence
    await box.acquire("c2")
    await box.pass_time(5000, beating=("t:1",))
    assert (await box.registry.lookup("c2")).position == 1
    await box.pass_time(1000, beating=("t:1",))
    assert await box.state("c2") is CallState.NONE
