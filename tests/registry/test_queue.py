"""Waiting, hand-off, reservations and claims."""

import pytest

from daemons.registry import Acquired, AcquireStatus, AdoptStatus, CallState, Member, ReleaseStatus
from tests.registry.box import TTL_MS, Box

pytestmark = pytest.mark.integration


async def full(box: Box, *waiting: str) -> int:
    """One slot, held by `holder` whose fence is returned, and a queue."""
    await box.up("t:1", "tts")
    fence = await box.grant("holder")
    for call in waiting:
        assert (await box.acquire(call)).status is AcquireStatus.QUEUED
    return fence


async def test_positions_count_from_one_and_stay(box: Box) -> None:
    await full(box, "c1", "c2", "c3")
    for position, call in enumerate(("c1", "c2", "c3"), 1):
        assert await box.acquire(call) == Acquired(AcquireStatus.QUEUED, position=position)


async def test_the_queue_is_bounded(box: Box) -> None:
    await full(box, "c1", "c2")
    assert await box.acquire("c3", queue_max=2) == Acquired(AcquireStatus.FULL)
    assert await box.state("c3") is CallState.NONE
    assert (await box.acquire("c2", queue_max=1)).position == 2


async def test_the_last_place_of_the_queue_is_a_place(box: Box) -> None:
    await full(box, "c1")
    assert await box.acquire("c2", queue_max=2) == Acquired(AcquireStatus.QUEUED, position=2)


async def test_who_was_turned_away_leaves_nothing_behind(box: Box) -> None:
    fence = await full(box, "c1")
    await box.acquire("too many", queue_max=1)
    assert (await box.acquire("c2")).position == 2
    await box.registry.cancel("c1")
    assert (await box.acquire("c2")).position == 1
    await box.pass_time(5000, beating=("t:1",))
    assert (await box.acquire("c2")).position == 1
    await box.pass_time(5000, beating=("t:1",))
    await box.registry.release("holder", fence)
    assert await box.state("c2") is CallState.RESERVED


async def test_without_a_queue_full_comes_at_once(box: Box) -> None:
    await full(box)
    assert await box.acquire("c1", queue_max=0) == Acquired(AcquireStatus.FULL)


async def test_a_release_hands_the_slot_to_the_head_in_the_same_script(box: Box) -> None:
    fence = await full(box, "c1", "c2")
    await box.registry.release("holder", fence)
    assert [await box.state(call) for call in ("c1", "c2")] == [CallState.RESERVED, CallState.QUEUED]
    assert (await box.acquire("late")).status is AcquireStatus.QUEUED
    claimed = await box.acquire("c1")
    assert claimed.status is AcquireStatus.GRANTED
    assert await box.acquire("c1") == claimed
    assert (await box.acquire("c2")).position == 1


async def test_grants_are_first_come_first_served(box: Box) -> None:
    calls = [f"c{i}" for i in range(6)]
    fence = await full(box, *calls)
    holder, order = "holder", []
    for _ in calls:
        await box.registry.release(holder, fence)
        for call in reversed([call for call in calls if call not in order]):
            answer = await box.acquire(call)
            if answer.status is AcquireStatus.GRANTED:
                assert answer.fence is not None
                holder, fence = call, answer.fence
                order.append(call)
    assert order == calls


async def test_nobody_passes_a_call_that_waits_for_more(box: Box) -> None:
    await full(box)
    await box.up("s:1", "stt")
    assert (await box.acquire("both", "stt", "tts")).status is AcquireStatus.QUEUED
    assert (await box.acquire("stt only", "stt")).status is AcquireStatus.QUEUED


async def test_a_head_that_its_holder_adopts_makes_way(box: Box) -> None:
    await full(box)
    await box.up("s:1", "stt")
    await box.acquire("both", "stt", "tts")
    await box.acquire("stt only", "stt")
    elsewhere = Member("t:9", "http://t:9", slot=0, boot="b", fence=90)
    assert await box.registry.adopt("both", 90, {"tts": elsewhere}, TTL_MS) is AdoptStatus.OK
    assert await box.state("stt only") is CallState.RESERVED


async def test_a_reservation_lasts_six_seconds_and_goes_to_the_next(box: Box) -> None:
    fence = await full(box, "c1", "c2")
    await box.registry.release("holder", fence)
    await box.pass_time(5999, beating=("t:1",), holding={})
    assert await box.state("c1") is CallState.RESERVED
    # c2's ticket has not been asked for as long, so it dies with the reservation; c3 has just come
    assert (await box.acquire("c3")).status is AcquireStatus.QUEUED
    await box.pass_time(1, beating=("t:1",))
    states = {call: await box.state(call) for call in ("c1", "c2", "c3")}
    assert states == {"c1": CallState.NONE, "c2": CallState.NONE, "c3": CallState.RESERVED}


async def test_a_claim_at_the_last_moment_counts(box: Box) -> None:
    fence = await full(box, "c1")
    await box.registry.release("holder", fence)
    await box.pass_time(5999, beating=("t:1",))
    assert (await box.acquire("c1")).status is AcquireStatus.GRANTED
    assert await box.state("c1") is CallState.HELD


async def test_a_ticket_lives_six_seconds_after_it_was_asked_for(box: Box) -> None:
    fence = await full(box, "c1", "c2")
    for _ in range(4):
        await box.pass_time(5000, beating=("t:1",), holding={"holder": fence})
        assert await box.state("c2") is CallState.QUEUED
        await box.acquire("c2")
    assert await box.state("c1") is CallState.NONE
    assert (await box.acquire("c2")).position == 1


async def test_cancel_leaves_the_queue(box: Box) -> None:
    await full(box, "c1", "c2")
    for _ in range(2):
        assert await box.registry.cancel("c1") is ReleaseStatus.OK
    assert (await box.acquire("c2")).position == 1


async def test_cancel_returns_a_reservation(box: Box) -> None:
    fence = await full(box, "c1", "c2")
    await box.registry.release("holder", fence)
    await box.registry.cancel("c1")
    assert await box.state("c2") is CallState.RESERVED


async def test_cancel_does_not_end_a_call_that_is_held(box: Box) -> None:
    await full(box)
    await box.registry.cancel("holder")
    assert await box.state("holder") is CallState.HELD


async def test_a_lease_that_runs_out_serves_the_queue(box: Box) -> None:
    await full(box)
    await box.pass_time(12_000, beating=("t:1",))
    await box.acquire("c1")
    await box.pass_time(3000, beating=("t:1",))
    assert await box.state("c1") is CallState.RESERVED


async def test_a_worker_that_comes_up_serves_the_queue(box: Box) -> None:
    await full(box, "c1", "c2")
    await box.up("t:2", "tts")
    assert [await box.state(call) for call in ("c1", "c2")] == [CallState.RESERVED, CallState.QUEUED]


@pytest.mark.parametrize("end", ["drain", "deregister", "restart"])
async def test_a_reservation_that_loses_its_worker_goes_back_to_the_head(box: Box, end: str) -> None:
    fence = await full(box, "c1", "c2")
    await box.registry.release("holder", fence)
    if end == "drain":
        await box.registry.drain("t:1", box.boot("t:1"))
    elif end == "deregister":
        await box.up("t:2", "stt")
        await box.registry.deregister("t:1", box.boot("t:1"))
    else:
        await box.registry.register("t:1", "another boot", "tts", "http://t:1", 1)
    assert [call.call for call in (await box.registry.snapshot()).queue] == ["c1", "c2"]
    await box.up("t:3", "tts")
    assert (await box.acquire("c1")).bundle["tts"].worker == "t:3"


async def test_a_reservation_that_loses_one_worker_frees_the_others(box: Box) -> None:
    await box.up("s:1", "stt")
    fence = await full(box)
    await box.acquire("both", "stt", "tts")
    await box.acquire("stt only", "stt")
    await box.registry.release("holder", fence)
    assert await box.state("both") is CallState.RESERVED
    await box.registry.drain("t:1", box.boot("t:1"))
    assert (await box.worker("s:1")).leases == ()
    await box.registry.cancel("both")
    assert await box.state("stt only") is CallState.RESERVED


async def test_a_call_that_waits_keeps_its_place_while_its_role_is_away(box: Box) -> None:
    await full(box, "c1", "c2")
    await box.registry.deregister("t:1", box.boot("t:1"))
    for _ in range(2):
        await box.pass_time(5000)
        for call in ("c1", "c2"):
            assert await box.acquire(call) == Acquired(AcquireStatus.UNAVAILABLE, role="tts")
    assert await box.acquire("new") == Acquired(AcquireStatus.UNAVAILABLE, role="tts")
    await box.up("t:1", "tts")
    assert [await box.state(call) for call in ("c1", "c2")] == [CallState.RESERVED, CallState.QUEUED]
