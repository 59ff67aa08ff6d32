"""Judges one world by what its processes wrote down and what its registry showed: no overlap, no leak, no call lost.

It knows nothing of how any of it works. Times are CLOCK_MONOTONIC in ns; the bounds are DESIGN's, each with
TOLERANCE_S for how often the world looks and how late a busy machine wakes it.
"""

from collections import defaultdict
from dataclasses import astuple, dataclass
from enum import StrEnum

from daemons.registry import CallState, Event, Snapshot, WorkerState
from ops.drill.faults.journal import Entry, Kind

TOLERANCE_S = 1.5
NOTICED_S = 4.5  # a lost lease, by its holder
PARTITION_S = 10.0  # a holder acts no longer after its last renewal
AGENT_LEAK_S = 16.0  # a lease whose holder says nothing
WORKER_LEAK_S = 31.0  # a lease on a worker that is dead
RESERVED_S = 6.0
RESUMED_S = 1.0  # a process that was stopped finds out when it runs again
AFTERMATH_S = 16.0  # how long after a fault a call may still end by it
STALL_S = 0.5  # the machine stood still: a sleep, or Redis's answer, was that late
REDIS, EVERYBODY = "redis", "everybody"


class Rule(StrEnum):
    OVERLAP = "overlap"
    LEAK = "leak"
    LOST = "lost call"
    LATE = "lost lease noticed late"
    FORGED = "work nobody was given"
    REGISTRY = "registry contradicts itself"


TIMED = (Rule.LEAK, Rule.LOST, Rule.LATE)  # what a machine that stands still can do to anyone


@dataclass(frozen=True, slots=True)
class Violation:
    rule: Rule
    at_ns: int
    words: str


@dataclass(slots=True)
class Trouble:
    """What was done to one process, to its way to the registry, or to Redis. `ended_ns` is set when it is over."""

    party: str  # a worker's name, REDIS or EVERYBODY
    began_ns: int
    spares_s: float  # it must last that long before it may end a call that this process holds
    ended_ns: int | None = None

    def covers(self, at_ns: int, after_s: float = 0.0) -> bool:
        return self.began_ns <= at_ns and (self.ended_ns is None or at_ns <= self.ended_ns + after_s * 1e9)

    def may_have_ended(self, worker: str, at_ns: int) -> bool:
        """A call that this worker held until then."""
        lasted_ns = min(at_ns, self.ended_ns or at_ns) - self.began_ns
        struck = self.party in (worker, REDIS, EVERYBODY)
        return struck and self.covers(at_ns, AFTERMATH_S) and lasted_ns >= self.spares_s * 1e9


@dataclass(slots=True)
class _Slot:
    fence: int = 0
    call: str = ""


@dataclass(slots=True)
class _Hold:
    """A call in the hands of an agent, from what it wrote and what the registry showed."""

    worker: str
    boot: str
    alive_ns: int  # last line of its journal
    renewed_ns: int  # the registry showed a later expiry at this time; at first, when it began
    expires_ms: int = -1
    missing_ns: int | None = None  # since when the registry does not show it


@dataclass
class Counts:
    """How much there was to judge."""

    accepted: int = 0  # pieces of work
    steps: int = 0
    holds: int = 0
    stale_refused: int = 0
    stale_accepted: int = 0  # rightly: nobody else had come meanwhile
    forged_refused: int = 0
    ended_by_faults: int = 0
    snapshots: int = 0
    events: int = 0
    stalls: int = 0
    not_judged: int = 0  # of TIMED, shortly after one

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


class Oracle:
    """Feed it in the order of time: `read`, `see` and `hear` say what happened; `violations` what was wrong."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.counts = Counts()
        self.troubles: list[Trouble] = []
        self.noticed_s: list[float] = []  # from a caller's hang-up to the holder's end, with no fault about
        self.given_up_s: list[float] = []  # from the last renewal to the end of a call that a fault ended
        self.last_accepted_ns: dict[tuple[str, str], int] = {}  # (worker, boot) → when it last accepted work
        self._slots: dict[tuple[str, str, int], _Slot] = defaultdict(_Slot)
        self._given: set[tuple[str, str, int, int, str]] = set()  # worker, boot, slot, fence, call
        self._holds: dict[tuple[str, int], _Hold] = {}
        self._last_life: dict[tuple[str, int], int] = {}  # (call, fence) → when its holder last did something
        self._hung_up: dict[str, int] = {}
        self._first_seen: dict[tuple[str, int, str, int], int] = {}  # lease in the registry → since when
        self._reserved: dict[tuple[str, int], int] = {}
        self._dead: dict[tuple[str, str], int] = {}  # (worker, boot) → when it ended
        self._stalls: list[tuple[int, int]] = []
        self._granted_fence = 0
        self._retired: set[tuple[str, str]] = set()
        self._told: set[tuple[object, ...]] = set()

    # What happened

    def read(self, entry: Entry) -> None:
        place = (entry.worker, entry.boot, entry.slot, entry.fence, entry.call)
        match entry.kind:
            case Kind.GIVEN:
                self._given.add(place)
                return
            case Kind.STALE:
                if entry.note == "done":
                    self.counts.stale_accepted += 1
                else:
                    self.counts.stale_refused += 1
                return
            case Kind.FORGED:
                if entry.note == "done":
                    self.blame(Rule.FORGED, entry.at_ns, f"{_words(entry)} was done under a fence of nobody's")
                else:
                    self.counts.forged_refused += 1
                return
        if entry.role == "agent":
            self._read_hold(entry)
        elif entry.kind is Kind.BEGIN:
            self.counts.accepted += 1
            self.last_accepted_ns[entry.worker, entry.boot] = entry.at_ns
            if place not in self._given:
                self.blame(Rule.FORGED, entry.at_ns, f"{_words(entry)} was accepted, but no holder was given that")
        self._check_slot(entry)

    def see(self, snapshot: Snapshot, at_ns: int) -> None:
        """What the registry holds, as shown to somebody whose way to it is well."""
        self.counts.snapshots += 1
        self._check_registry(snapshot, at_ns)
        self._check_leases(snapshot, at_ns)
        self._check_holds(snapshot, at_ns)

    def hear(self, event: Event, at_ns: int) -> None:
        """A line of the audit log."""
        self.counts.events += 1
        if event.kind in ("granted", "swapped", "reserved"):
            fence = int(event.data["fence"])
            was_reserved = event.kind == "granted" and event.data.get("was") == "RESERVED"
            if fence <= self._granted_fence and not was_reserved:
                self.blame(Rule.REGISTRY, at_ns, f"fence {fence} was granted after {self._granted_fence}")
            self._granted_fence = max(self._granted_fence, fence)
        elif event.kind == "adopted":
            self._granted_fence = max(self._granted_fence, int(event.data["fence"]))
        elif event.kind == "retired":
            self._retired.add((event.data["worker"], event.data["boot"]))
        elif event.kind == "registered" and (event.data["worker"], event.data["boot"]) in self._retired:
            self.blame(Rule.REGISTRY, at_ns, f"{event.data['worker']}: retired boot {event.data['boot']} came back")

    def hung_up(self, call: str, at_ns: int) -> None:
        """Its caller is about to tell the registry so."""
        self._hung_up.setdefault(call, at_ns)

    def died(self, worker: str, boot: str, at_ns: int) -> None:
        self._dead[worker, boot] = at_ns
        for lease in [lease for lease, hold in self._holds.items() if hold.boot == boot]:
            del self._holds[lease]
            self.counts.ended_by_faults += 1

    def is_dead(self, worker: str, boot: str) -> bool:
        return (worker, boot) in self._dead

    def data_lost(self) -> None:
        """The registry starts empty. What the audit log said before does not bind it; what slots have seen does."""
        self._granted_fence = 0
        self._retired.clear()

    def stalled(self, began_ns: int, ended_ns: int) -> None:
        self.counts.stalls += 1
        self._stalls.append((began_ns, ended_ns))

    def in_trouble(self, party: str, at_ns: int, after_s: float = AFTERMATH_S) -> bool:
        """Whether a fault struck it then, or ended up to `after_s` before."""
        return any(trouble.party == party and trouble.covers(at_ns, after_s) for trouble in self.troubles)

    def aged_s(self, since_ns: int, at_ns: int) -> float:
        """How much older the registry may think something is by now: nothing ages while it is away."""
        away = (trouble for trouble in self.troubles if trouble.party == REDIS)
        away_ns = sum(max(0, min(at_ns, one.ended_ns or at_ns) - max(since_ns, one.began_ns)) for one in away)
        return (at_ns - since_ns - away_ns) / 1e9

    def _all_was_well(self, at_ns: int) -> bool:
        """For as long as a hang-up may take; one that met an empty registry is said again a few seconds later."""
        return not any(
            trouble.covers(at_ns, AFTERMATH_S if trouble.party == REDIS else NOTICED_S) for trouble in self.troubles
        )

    def is_held(self, call: str, fence: int) -> bool:
        """Whether an agent works on it now, by what it wrote."""
        return (call, fence) in self._holds

    # Journal

    def _check_slot(self, entry: Entry) -> None:
        slot = self._slots[entry.worker, entry.boot, entry.slot]
        if entry.kind is Kind.END:
            return
        if entry.kind is Kind.STEP:
            self.counts.steps += 1
        if entry.fence < slot.fence:
            did = "was accepted" if entry.kind is Kind.BEGIN else "moved on"
            self.blame(Rule.OVERLAP, entry.at_ns, f"{_words(entry)} {did} after fence {slot.fence} of {slot.call}")
        elif entry.fence == slot.fence and slot.call and entry.call != slot.call:
            self.blame(Rule.OVERLAP, entry.at_ns, f"{_words(entry)} shares its fence with {slot.call}")
        elif entry.fence > slot.fence:
            slot.fence, slot.call = entry.fence, entry.call

    def _read_hold(self, entry: Entry) -> None:
        lease = (entry.call, entry.fence)
        self._last_life[lease] = entry.at_ns
        if entry.kind is Kind.BEGIN:
            self.counts.holds += 1
            self.last_accepted_ns[entry.worker, entry.boot] = entry.at_ns
            self._holds[lease] = _Hold(entry.worker, entry.boot, entry.at_ns, entry.at_ns)
            return
        hold = self._holds.get(lease)
        if hold is None:
            return
        hold.alive_ns = entry.at_ns
        if entry.kind is Kind.STEP:
            self._check_renewal(entry, hold)
        else:
            del self._holds[lease]
            self._check_end(entry, hold)

    def _check_renewal(self, entry: Entry, hold: _Hold) -> None:
        age_s = (entry.at_ns - hold.renewed_ns) / 1e9
        if age_s > PARTITION_S + TOLERANCE_S and not self._just_resumed(hold.worker, entry.at_ns):
            self.blame(Rule.LATE, entry.at_ns, f"{_words(entry)} is used {age_s:.1f} s after its last renewal")

    def _check_end(self, entry: Entry, hold: _Hold) -> None:
        if entry.call in self._hung_up:
            if entry.note.startswith("lost") and self._all_was_well(entry.at_ns):
                self.noticed_s.append((entry.at_ns - self._hung_up[entry.call]) / 1e9)
            return
        if entry.note == "its caller left":
            return
        by_fault = any(trouble.may_have_ended(entry.worker, entry.at_ns) for trouble in self.troubles)
        if by_fault:
            self.counts.ended_by_faults += 1
            if not self._just_resumed(hold.worker, entry.at_ns):
                self.given_up_s.append((entry.at_ns - hold.renewed_ns) / 1e9)
        else:
            self.blame(Rule.LOST, entry.at_ns, f"{_words(entry)} ended: {entry.note}")

    # Registry

    def _check_registry(self, snapshot: Snapshot, at_ns: int) -> None:
        for worker in snapshot.workers:
            if len(worker.leases) > worker.slots:
                self.blame(Rule.REGISTRY, at_ns, f"{worker.worker} has {len(worker.leases)} leases on its slots")
            if worker.state is WorkerState.GONE and worker.leases:
                self.blame(Rule.REGISTRY, at_ns, f"{worker.worker} is GONE and owns {len(worker.leases)} leases")
        holders: dict[tuple[str, int], str] = {}
        leased = {
            (w.worker, lease.slot, lease.call, lease.fence): w.boot for w in snapshot.workers for lease in w.leases
        }
        for call in snapshot.calls:
            for member in call.bundle.values():
                boot = leased.get((member.worker, member.slot, call.call, member.fence))
                if boot is None:
                    continue  # lost, and not yet swapped
                if boot != member.boot:
                    self.blame(Rule.LEAK, at_ns, f"{call.call} still holds a slot of {member.worker}'s last boot")
                other = holders.setdefault((member.worker, member.slot), call.call)
                if other != call.call:
                    self.blame(
                        Rule.REGISTRY, at_ns, f"{member.worker}/{member.slot} is {other}'s and {call.call}'s at once"
                    )

    def _check_leases(self, snapshot: Snapshot, at_ns: int) -> None:
        """Each has a holder that does something; none is on a worker long dead."""
        calls = {call.call: call for call in snapshot.calls}
        seen: dict[tuple[str, int, str, int], int] = {}
        for worker in snapshot.workers:
            for lease in worker.leases:
                key = (worker.worker, lease.slot, lease.call, lease.fence)
                since_ns = seen[key] = self._first_seen.get(key, at_ns)
                call = calls.get(lease.call)
                if call is None:
                    self.blame(Rule.LEAK, at_ns, f"{lease.call} has a slot of {worker.worker}, and is no call")
                    continue
                if call.state is CallState.RESERVED:
                    limit_s, life_ns = RESERVED_S, since_ns
                else:
                    limit_s, life_ns = AGENT_LEAK_S, max(since_ns, self._last_life.get((call.call, call.fence), 0))
                if (age_s := self.aged_s(life_ns, at_ns)) > limit_s + TOLERANCE_S:
                    self.blame(
                        Rule.LEAK,
                        at_ns,
                        f"{lease.call} keeps {worker.worker}/{lease.slot}, {age_s:.1f} s after anyone used it",
                        (Rule.LEAK, key),
                    )
                died_ns = self._dead.get((worker.worker, worker.boot))
                if died_ns is not None and (age_s := self.aged_s(died_ns, at_ns)) > WORKER_LEAK_S + TOLERANCE_S:
                    self.blame(
                        Rule.LEAK,
                        at_ns,
                        f"{lease.call} keeps {worker.worker}/{lease.slot}, which died {age_s:.1f} s ago",
                        (Rule.LEAK, "dead", key),
                    )
        self._first_seen = seen

    def _check_holds(self, snapshot: Snapshot, at_ns: int) -> None:
        """What holders believe against what is so."""
        held = {(call.call, call.fence): call for call in snapshot.calls if call.state is CallState.HELD}
        for lease, hold in self._holds.items():
            record = held.get(lease)
            if record is not None:
                hold.missing_ns = None
                if record.expires_ms != hold.expires_ms:
                    hold.expires_ms, hold.renewed_ns = record.expires_ms, at_ns
                continue
            hold.missing_ns = hold.missing_ns or at_ns
            late_s = (hold.alive_ns - hold.missing_ns) / 1e9
            in_trouble = self.in_trouble(REDIS, hold.missing_ns) or self.in_trouble(hold.worker, hold.missing_ns)
            if late_s > NOTICED_S + TOLERANCE_S and not in_trouble:
                words = f"{lease[0]} (fence {lease[1]}) is used {late_s:.1f} s after the registry ended it"
                self.blame(Rule.LATE, at_ns, words, (Rule.LATE, lease))

    def _just_resumed(self, worker: str, at_ns: int) -> bool:
        return any(
            trouble.party == worker
            and trouble.ended_ns is not None
            and trouble.ended_ns <= at_ns <= trouble.ended_ns + RESUMED_S * 1e9
            for trouble in self.troubles
        )

    def blame(self, rule: Rule, at_ns: int, words: str, once: tuple[object, ...] | None = None) -> None:
        """`once`: what this is about, when it would be seen again and again."""
        if once is not None:
            if once in self._told:
                return
            self._told.add(once)
        if rule in TIMED and any(began <= at_ns <= ended + AFTERMATH_S * 1e9 for began, ended in self._stalls):
            self.counts.not_judged += 1
        else:
            self.violations.append(Violation(rule, at_ns, words))


def _words(entry: Entry) -> str:
    return f"{entry.call} (fence {entry.fence}) on {entry.role} {entry.worker}/{entry.slot}"
