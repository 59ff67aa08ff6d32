"""Each invariant is seen to be broken when it is, and only then."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from daemons.registry import (
    CallRecord,
    CallState,
    Event,
    Member,
    SlotLease,
    Snapshot,
    WorkerRecord,
    WorkerState,
)
from ops.drill.registry.invariants import Broken, Invariants, unchanged

NOW_MS = 1_700_000_000_000


def held(call: str, slot: int = 0, fence: int = 5, **changes: Any) -> CallRecord:
    member = Member("t:1", "http://t:1", slot, "b1", fence)
    record = CallRecord(call, CallState.HELD, ("tts",), fence, {"tts": member}, NOW_MS + 9000, 0, None)
    return replace(record, **changes)


def waiting(call: str, position: int) -> CallRecord:
    return CallRecord(call, CallState.QUEUED, ("tts",), 0, {}, NOW_MS + 6000, 0, position)


def worker(*leases: SlotLease, **changes: Any) -> WorkerRecord:
    record = WorkerRecord("t:1", "b1", "tts", "http://t:1", 2, WorkerState.AVAILABLE, 0, {}, leases)
    return replace(record, **changes)


def snapshot(*records: WorkerRecord | CallRecord) -> Snapshot:
    workers = tuple(record for record in records if isinstance(record, WorkerRecord))
    calls = tuple(record for record in records if isinstance(record, CallRecord))
    return Snapshot(NOW_MS, workers, calls, "0-0")


LEASES = [SlotLease(slot, f"c{slot}", 5) for slot in range(3)]
GOOD = snapshot(worker(*LEASES[:2]), held("c0", 0), held("c1", 1), waiting("c2", 1), waiting("c3", 2))


def event(kind: str, call: str, **data: str) -> Event:
    return Event("1-1", kind, 1, NOW_MS, {"call": call, **data})


def test_a_good_registry_breaks_nothing() -> None:
    invariants = Invariants()
    invariants.see(GOOD)
    invariants.see(GOOD)
    unchanged(GOOD, GOOD)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (snapshot(worker(*LEASES), *(held(f"c{slot}", slot) for slot in range(3))), "more leases than slots"),
        (snapshot(worker(LEASES[0], LEASES[0]), held("c0")), "leased twice"),
        (snapshot(worker(SlotLease(7, "c0", 5)), held("c0", 7)), "no such slot"),
        (snapshot(worker(LEASES[0], state=WorkerState.GONE), held("c0")), "GONE and owns something"),
        (snapshot(worker(LEASES[0], hb_age_ms=30_001), held("c0")), "silent and owns something"),
        (snapshot(worker(LEASES[0])), "knows nothing of its lease"),
        (snapshot(worker(LEASES[0], boot="b2"), held("c0")), "knows nothing of its lease"),
        (snapshot(worker(), worker()), "stands twice"),
        (snapshot(held("c0", expires_ms=NOW_MS)), "0 ms left"),
        (snapshot(held("c0", expires_ms=NOW_MS + 15_001)), "15001 ms left"),
        (snapshot(held("c0", position=1)), "is HELD at 1"),
        (snapshot(held("c0", bundle={})), "has not all of its roles"),
        (snapshot(waiting("c0", 2)), "the queue has places"),
    ],
)
def test_a_bad_moment_is_seen(bad: Snapshot, said: str) -> None:
    with pytest.raises(Broken, match=said):
        Invariants().see(bad)


def moments(*snapshots: Snapshot, between: Callable[[Invariants], None] = lambda _: None) -> None:
    invariants = Invariants()
    invariants.see(snapshots[0])
    between(invariants)
    for each in snapshots[1:]:
        invariants.see(each)


def one(fence: int = 5, boot: str = "b1") -> Snapshot:
    call = held("c0", fence=fence)
    member = replace(call.bundle["tts"], boot=boot)
    return snapshot(worker(SlotLease(0, "c0", fence), boot=boot), replace(call, bundle={"tts": member}))


def test_a_slots_fence_never_falls() -> None:
    moments(one(fence=5), one(fence=5), one(fence=6))
    with pytest.raises(Broken, match="has fallen"):
        moments(one(fence=6), one(fence=5))
    with pytest.raises(Broken, match="has fallen"):
        moments(one(fence=6, boot="b1"), one(fence=5, boot="b2"))


def test_grants_after_a_loss_of_data_lie_above_what_the_worker_was_told() -> None:
    def lose_data(invariants: Invariants) -> None:
        invariants.lose_data({("t:1", "b1"): 6})

    def adopt(invariants: Invariants) -> None:
        lose_data(invariants)
        invariants.hear([event("adopted", "c0")])

    moments(one(fence=6), one(fence=7), between=lose_data)
    moments(one(fence=6), one(fence=6), between=adopt)
    with pytest.raises(Broken, match="when data were lost"):
        moments(one(fence=6), one(fence=6), between=lose_data)


def test_a_retired_boot_never_returns() -> None:
    moments(one(boot="b1"), one(boot="b2"), one(boot="b3"))
    with pytest.raises(Broken, match="b1 has come back"):
        moments(one(boot="b1"), one(boot="b2"), one(boot="b1"))


def test_a_repeated_register_changes_nothing() -> None:
    with pytest.raises(Broken, match="changed leases"):
        unchanged(one(fence=5), one(fence=6))
    with pytest.raises(Broken, match="changed calls"):
        unchanged(snapshot(worker(), held("c0")), snapshot(worker()))


FIRST = [event("queued", "c0"), event("queued", "c1")]


@pytest.mark.parametrize(
    "events",
    [
        [*FIRST, event("reserved", "c0"), event("granted", "c1", was="QUEUED")],
        [*FIRST, event("cancelled", "c0"), event("reserved", "c1")],
        [*FIRST, event("reserved", "c0"), event("granted", "c0", was="RESERVED"), event("reserved", "c1")],
        [*FIRST, event("reserved", "c0"), event("queued", "c0"), event("reserved", "c0"), event("reserved", "c1")],
        [event("granted", "new", was="QUEUED")],
    ],
)
def test_first_come_first_served(events: list[Event]) -> None:
    Invariants().hear(events)


@pytest.mark.parametrize(
    "events",
    [
        [*FIRST, event("reserved", "c1")],
        [*FIRST, event("granted", "c1", was="QUEUED")],
        [*FIRST, event("granted", "new", was="QUEUED")],
        [*FIRST, event("reserved", "c0"), event("queued", "c0"), event("reserved", "c1")],
    ],
)
def test_nobody_is_passed(events: list[Event]) -> None:
    with pytest.raises(Broken, match="was served before"):
        Invariants().hear(events)
