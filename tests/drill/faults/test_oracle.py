"""The oracle on stories made up for it: each wrong that it is there for is seen, and what is right is not blamed."""

from dataclasses import replace

from daemons.registry import (
    Bundle,
    CallRecord,
    CallState,
    Event,
    Member,
    SlotLease,
    Snapshot,
    WorkerRecord,
    WorkerState,
)
from ops.drill.faults.journal import Entry, Kind
from ops.drill.faults.oracle import EVERYBODY, REDIS, Oracle, Rule, Trouble

AGENT, STT = "127.0.0.1:1", "127.0.0.1:3"


class Story:
    """One agent and one stt worker; time is in seconds."""

    def __init__(self) -> None:
        self.oracle = Oracle()

    def write(
        self,
        at_s: float,
        kind: Kind,
        call: str,
        fence: int,
        *,
        role: str = "stt",
        slot: int = 0,
        boot: str = "a",
        note: str = "",
    ) -> None:
        worker = AGENT if role == "agent" else STT
        self.oracle.read(Entry(round(at_s * 1e9), kind, role, worker, boot, slot, fence, call, 1, note))

    def work(self, at_s: float, call: str, fence: int, slot: int = 0) -> None:
        self.write(at_s, Kind.GIVEN, call, fence, slot=slot)
        self.write(at_s, Kind.BEGIN, call, fence, slot=slot)

    def hold(self, at_s: float, call: str, fence: int) -> None:
        self.write(at_s, Kind.BEGIN, call, fence, role="agent")

    def use(self, at_s: float, call: str, fence: int) -> None:
        self.write(at_s, Kind.STEP, call, fence, role="agent")

    def end(self, at_s: float, call: str, fence: int, why: str = "lost: it is gone") -> None:
        self.write(at_s, Kind.END, call, fence, role="agent", note=why)

    def see(self, at_s: float, *calls: CallRecord, **changes: object) -> None:
        workers = [_worker(AGENT, "agent", calls), replace(_worker(STT, "stt", calls), **changes)]  # type: ignore[arg-type]
        self.oracle.see(Snapshot(round(at_s * 1000), tuple(workers), calls, "0-0"), round(at_s * 1e9))

    @property
    def rules(self) -> list[Rule]:
        return [violation.rule for violation in self.oracle.violations]


def held(call: str = "c", fence: int = 1, *, expires_s: float = 15.0, state: CallState = CallState.HELD) -> CallRecord:
    bundle: Bundle = {
        "agent": Member(AGENT, "", 0, "a", fence),
        "stt": Member(STT, "", 0, "a", fence),
    }
    return CallRecord(call, state, ("agent", "stt"), fence, bundle, round(expires_s * 1000), 0, None)


def _worker(worker: str, role: str, calls: tuple[CallRecord, ...]) -> WorkerRecord:
    leases = tuple(SlotLease(call.bundle[role].slot, call.call, call.bundle[role].fence) for call in calls)
    return WorkerRecord(worker, "a", role, "", 2, WorkerState.AVAILABLE, 0, {}, leases)


# Overlaps


def test_slots_that_change_hands_in_order_are_well() -> None:
    story = Story()
    story.work(1, "a", 1)
    story.write(2, Kind.STEP, "a", 1)
    story.work(3, "b", 2)
    story.write(3.1, Kind.END, "a", 1, note="cut short")
    story.write(4, Kind.STEP, "b", 2)
    story.work(5, "c", 1, slot=1)
    assert story.rules == []


def test_work_accepted_under_a_superseded_fence_is_an_overlap() -> None:
    story = Story()
    story.work(1, "a", 1)
    story.work(2, "b", 2)
    story.work(3, "a", 1)
    assert story.rules == [Rule.OVERLAP]


def test_superseded_work_that_moves_on_is_an_overlap() -> None:
    story = Story()
    story.work(1, "a", 1)
    story.work(2, "b", 2)
    story.write(3, Kind.STEP, "a", 1)
    assert story.rules == [Rule.OVERLAP]


def test_two_calls_under_one_fence_are_an_overlap() -> None:
    story = Story()
    story.work(1, "a", 1)
    story.work(2, "b", 1)
    assert story.rules == [Rule.OVERLAP]


def test_a_holder_that_uses_a_slot_which_is_another_calls_is_an_overlap() -> None:
    story = Story()
    story.hold(1, "a", 1)
    story.hold(2, "b", 2)
    story.use(3, "a", 1)
    assert story.rules == [Rule.OVERLAP]


def test_a_new_boot_begins_anew() -> None:
    story = Story()
    story.work(1, "a", 5)
    story.write(2, Kind.GIVEN, "b", 4, boot="b")
    story.write(2, Kind.BEGIN, "b", 4, boot="b")
    assert story.rules == []


def test_work_that_no_holder_was_given_is_seen() -> None:
    story = Story()
    story.write(1, Kind.BEGIN, "a", 1)
    story.write(2, Kind.FORGED, "a", 10**9, note="done")
    story.write(3, Kind.FORGED, "a", 10**9, note="Refused 409")
    assert story.rules == [Rule.FORGED, Rule.FORGED]


# Calls


def test_a_call_that_ends_without_a_reason_is_lost() -> None:
    story = Story()
    story.hold(1, "a", 1)
    story.end(2, "a", 1)
    assert story.rules == [Rule.LOST]


def test_calls_end_when_somebody_hangs_up() -> None:
    story = Story()
    story.hold(1, "a", 1)
    story.end(2, "a", 1, "its caller left")
    story.hold(3, "b", 2)
    story.oracle.hung_up("b", round(3.5e9))
    story.end(4, "b", 2)
    assert story.rules == []
    assert story.oracle.noticed_s == [0.5]


def test_a_fault_ends_calls_of_its_own_agent() -> None:
    story = Story()
    story.oracle.troubles = [Trouble(AGENT, 0, 0, round(1e9))]
    story.hold(1, "a", 1)
    story.end(3, "a", 1)
    assert (story.rules, story.oracle.given_up_s) == ([], [2])


def test_a_fault_long_ago_or_of_another_process_ends_no_call() -> None:
    story = Story()
    story.oracle.troubles = [Trouble(AGENT, 0, 0, round(1e9)), Trouble(STT, round(49e9), 0)]
    story.hold(50, "a", 1)
    story.end(60, "a", 1)
    assert story.rules == [Rule.LOST]


def test_what_strikes_redis_or_everybody_may_end_any_call() -> None:
    for party in (REDIS, EVERYBODY):
        story = Story()
        story.oracle.troubles = [Trouble(party, 0, 0)]
        story.hold(1, "a", 1)
        story.end(3, "a", 1)
        assert story.rules == []


def test_a_call_must_outlive_a_fault_that_is_short() -> None:
    story = Story()
    story.oracle.troubles = [Trouble(AGENT, round(1e9), 8, round(8e9))]
    story.hold(1, "a", 1)
    story.end(10, "a", 1)
    assert story.rules == [Rule.LOST]
    story.oracle.troubles = [Trouble(AGENT, round(1e9), 8, round(9e9))]
    story.hold(1, "b", 2)
    story.end(10, "b", 2)
    assert story.rules == [Rule.LOST]


def test_calls_of_a_dead_agent_are_no_longer_held() -> None:
    story = Story()
    story.hold(1, "a", 1)
    assert story.oracle.is_held("a", 1)
    story.oracle.died(AGENT, "a", round(2e9))
    assert not story.oracle.is_held("a", 1)
    assert story.rules == []


# Noticing


def test_a_lease_used_long_after_its_last_renewal_is_late() -> None:
    story = Story()
    story.hold(1, "a", 1)
    story.see(1, held("a"))
    story.use(12, "a", 1)
    assert story.rules == []
    story.use(13, "a", 1)
    assert story.rules == [Rule.LATE]


def test_a_lease_that_was_never_renewed_counts_from_its_begin() -> None:
    story = Story()
    story.hold(1, "a", 1)
    story.use(13, "a", 1)
    assert story.rules == [Rule.LATE]


def test_a_lease_that_is_renewed_may_be_used() -> None:
    story = Story()
    story.hold(1, "a", 1)
    for at_s in range(1, 40, 3):
        story.see(at_s, held("a", expires_s=at_s + 15))
        story.use(at_s + 1, "a", 1)
    assert story.rules == []


def test_a_process_that_was_stopped_may_find_out_when_it_runs_again() -> None:
    story = Story()
    story.hold(1, "a", 1)
    story.see(1, held("a"))
    story.oracle.troubles = [Trouble(AGENT, round(2e9), 0, round(22e9))]
    story.use(22.5, "a", 1)
    assert story.rules == []
    story.use(23.5, "a", 1)
    assert story.rules == [Rule.LATE]


def test_a_lease_used_long_after_the_registry_has_ended_it_is_late() -> None:
    story = Story()
    story.hold(1, "a", 1)
    story.see(1, held("a"))
    for at_s in range(2, 8):
        story.see(at_s)
        story.use(at_s, "a", 1)
    assert story.rules == []
    story.use(8.5, "a", 1)
    story.see(8.5)
    story.see(8.75)
    assert story.rules == [Rule.LATE]


def test_a_lease_given_back_to_a_registry_that_had_lost_it_was_not_lost() -> None:
    story = Story()
    story.hold(1, "a", 1)
    story.see(1, held("a"))
    for at_s in range(2, 12):
        story.see(at_s, *([] if at_s % 4 else [held("a", expires_s=at_s + 15)]))
        story.use(at_s, "a", 1)
    assert story.rules == []


# Leaks


def test_a_lease_that_nobody_uses_leaks_after_16_s() -> None:
    story = Story()
    story.hold(0, "c", 1)
    story.use(1, "c", 1)
    story.see(1, held())
    story.see(18, held())
    assert story.rules == []
    story.see(19, held())
    assert set(story.rules) == {Rule.LEAK}


def test_while_the_registry_is_away_nothing_ages() -> None:
    story = Story()
    story.hold(0, "c", 1)
    story.see(1, held())
    story.oracle.troubles = [Trouble(REDIS, round(2e9), 0, round(8e9))]
    story.see(22, held())
    story.oracle.troubles.append(Trouble(REDIS, round(22e9), 0))
    story.see(30, held())
    assert story.rules == [], "it has just come back, and nobody has said so yet"
    story.oracle.troubles[-1].ended_ns = round(30e9)
    story.see(33, held())
    assert set(story.rules) == {Rule.LEAK}


def test_a_reservation_leaks_after_6_s() -> None:
    story = Story()
    story.see(1, held(state=CallState.RESERVED))
    story.see(8, held(state=CallState.RESERVED))
    assert story.rules == []
    story.see(9, held(state=CallState.RESERVED))
    assert set(story.rules) == {Rule.LEAK}


def test_a_lease_on_a_dead_worker_leaks_after_31_s() -> None:
    story = Story()
    story.hold(0, "c", 1)
    story.oracle.died(STT, "a", round(1e9))
    for at_s in range(1, 33):
        story.use(at_s, "c", 1)
        story.see(at_s, held(expires_s=at_s + 15))
    assert story.rules == []
    story.use(34, "c", 1)
    story.see(34, held(expires_s=49))
    assert story.rules == [Rule.LEAK]


def test_a_lease_on_a_boot_that_has_a_successor_leaks_at_once() -> None:
    story = Story()
    story.see(1, held(), boot="b")
    assert story.rules == [Rule.LEAK]


def test_a_slot_of_no_call_leaks_at_once() -> None:
    story = Story()
    story.see(1, leases=(SlotLease(0, "nobody", 1),))
    assert story.rules == [Rule.LEAK]


# The registry's own word


def test_a_slot_that_two_calls_have_is_seen() -> None:
    story = Story()
    story.see(1, held("a", 1), held("b", 2))
    assert Rule.REGISTRY in story.rules


def test_more_leases_than_slots_are_seen() -> None:
    story = Story()
    story.see(1, held(), slots=0)
    assert story.rules == [Rule.REGISTRY]


def test_a_worker_that_is_gone_owns_nothing() -> None:
    story = Story()
    story.see(1, held(), state=WorkerState.GONE)
    assert story.rules == [Rule.REGISTRY]


def test_granted_fences_rise_but_after_a_loss_of_data() -> None:
    story = Story()
    story.oracle.hear(Event("1-0", "reserved", 1, 0, {"fence": "5"}), 0)
    story.oracle.hear(Event("2-0", "granted", 2, 0, {"fence": "6", "was": "QUEUED"}), 0)
    story.oracle.hear(Event("3-0", "granted", 3, 0, {"fence": "5", "was": "RESERVED"}), 0)
    assert story.rules == []
    story.oracle.hear(Event("4-0", "swapped", 4, 0, {"fence": "6"}), 0)
    assert story.rules == [Rule.REGISTRY]
    story.oracle.data_lost()
    story.oracle.hear(Event("5-0", "granted", 5, 0, {"fence": "6", "was": "QUEUED"}), 0)
    assert story.rules == [Rule.REGISTRY]


def test_a_retired_boot_that_comes_back_is_seen() -> None:
    story = Story()
    story.oracle.hear(Event("1-0", "retired", 1, 0, {"worker": STT, "boot": "a"}), 0)
    story.oracle.hear(Event("2-0", "registered", 2, 0, {"worker": STT, "boot": "b"}), 0)
    assert story.rules == []
    story.oracle.hear(Event("3-0", "registered", 3, 0, {"worker": STT, "boot": "a"}), 0)
    assert story.rules == [Rule.REGISTRY]


def test_what_a_machine_did_that_stood_still_is_counted_and_not_judged() -> None:
    story = Story()
    story.hold(1, "a", 1)
    story.oracle.stalled(round(2e9), round(5e9))
    story.end(6, "a", 1)
    assert story.rules == []
    assert (story.oracle.counts.stalls, story.oracle.counts.not_judged) == (1, 1)
    story.work(7, "b", 2)
    story.work(8, "a", 1)
    assert story.rules == [Rule.OVERLAP], "that is wrong at any speed"
