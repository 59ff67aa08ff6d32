"""The registry as it should be: its rules in plain Python, without Redis. The scripts must answer as this does.

It is written from the rules (ARCHITECTURE.md, the docstrings of `Registry`), not from the scripts, and keeps its
records another way (`state.py`). The queue is served before and after every operation, whether or not anything came
free. Speed is no aim here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from daemons.registry import (
    Acquired,
    AcquireStatus,
    AdoptStatus,
    Bundle,
    CallRecord,
    CallState,
    DrainStatus,
    Heartbeat,
    HeartbeatStatus,
    Lease,
    Member,
    Probed,
    ProbeStatus,
    Reaped,
    RegisterStatus,
    ReleaseStatus,
    Renewed,
    RenewStatus,
    SlotLease,
    Snapshot,
    Standing,
    Swapped,
    SwapStatus,
    WorkerRecord,
    WorkerState,
)
from ops.drill.registry.audit import Entry
from ops.drill.registry.state import HOLDER_ROLE, SILENT_MS, TICKET_MS, Call, State, Worker

P = ParamSpec("P")
R = TypeVar("R")


def operation(body: "Callable[Concatenate[RegistryModel, P], R]") -> "Callable[Concatenate[RegistryModel, P], R]":
    """One atomic step: time moves, what is overdue ends, and the queue is served before and after."""

    @wraps(body)
    def run(self: "RegistryModel", /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.begin()
        answer = body(self, *args, **kwargs)
        self.state.serve_queue()
        return answer

    return run


class RegistryModel:
    """Methods, arguments and answers are those of `Registry`, but for the audit log's ids.

    `now_ms` is what the scripts are given for TIME.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.state = State(now_ms)
        self._overdue = Reaped()

    def begin(self) -> None:
        self.state.move_time()
        self._overdue = self.state.end_what_is_overdue()
        self.state.serve_queue()

    # Workers -------------------------------------------------------------------------------------

    @operation
    def register(
        self, worker: str, boot: str, role: str, addr: str, slots: int, max_fence: int, meta: Mapping[str, Any]
    ) -> RegisterStatus:
        state = self.state
        state.raise_fence(max_fence)
        if (worker, boot) in state.retired:
            return RegisterStatus.STALE_BOOT
        if (live := state.registered(worker, boot)) is not None:
            live.heartbeat_ms = state.now
            return RegisterStatus.REFRESHED

        before = state.workers.get(worker)
        if before is not None and before.boot != boot:
            state.retired.add((worker, before.boot))
            state.note("retired", worker=worker, role=before.role, boot=before.boot, was=before.state)
            state.revoke(worker)
        granted = before.granted if before is not None else 0
        state.workers[worker] = Worker(
            worker, boot, role, addr, slots, WorkerState.STARTING, state.now, meta, granted=granted
        )
        state.note("registered", worker=worker, role=role, boot=boot, slots=slots)
        state.revoke(worker, from_slot=slots)
        return RegisterStatus.CREATED

    @operation
    def heartbeat(self, worker: str, boot: str, ready: bool) -> Heartbeat:
        w = self.state.registered(worker, boot)
        if w is None:
            return Heartbeat(HeartbeatStatus.UNKNOWN)
        w.heartbeat_ms = self.state.now
        w.ready = w.ready or ready
        if ready and w.state is WorkerState.STARTING:
            self.state.enter(w, WorkerState.AVAILABLE)
        leases = (
            Lease(slot, c.name, c.bundle[role].fence, dict(c.bundle), c.expires_ms)
            for slot, c, role in self.state.leases(worker)
            if c.state is CallState.HELD
        )
        return Heartbeat(HeartbeatStatus.OK, w.state, tuple(leases))

    @operation
    def probe(self, worker: str, boot: str, ok: bool) -> Probed:
        w = self.state.registered(worker, boot)
        if w is None:
            return Probed(ProbeStatus.UNKNOWN)
        w.good_probes, w.bad_probes = (w.good_probes + 1, 0) if ok else (0, w.bad_probes + 1)
        silent_ms = self.state.now - w.heartbeat_ms
        if w.bad_probes >= 3 and w.state in (WorkerState.AVAILABLE, WorkerState.STARTING):
            self.state.enter(w, WorkerState.UNHEALTHY)
        elif w.good_probes >= 2 and w.state is WorkerState.UNHEALTHY and silent_ms <= SILENT_MS:
            self.state.enter(w, WorkerState.AVAILABLE if w.ready else WorkerState.STARTING)
        return Probed(ProbeStatus.OK, w.state)

    @operation
    def drain(self, worker: str, boot: str) -> DrainStatus:
        w = self.state.registered(worker, boot)
        if w is None:
            return DrainStatus.UNKNOWN
        self.state.enter(w, WorkerState.DRAINING)
        for _, c, _ in self.state.leases(worker):
            if c.state is CallState.RESERVED:
                self.state.wait_again(c)
        return DrainStatus.OK

    @operation
    def deregister(self, worker: str, boot: str) -> DrainStatus:
        w = self.state.workers.get(worker)
        if w is None or w.boot != boot:
            return DrainStatus.UNKNOWN
        self.state.to_gone(w)
        return DrainStatus.OK

    # Calls ---------------------------------------------------------------------------------------

    @operation
    def acquire(self, call: str, roles: Sequence[str], ttl_ms: int, queue_max: int) -> Acquired:
        state = self.state
        known = state.calls.get(call)
        c = known or Call(call, tuple(roles), ticket=state.seq, since_ms=state.now, expires_ms=0)
        if c.state is CallState.QUEUED:
            c.expires_ms = state.now + TICKET_MS
            present = {w.role for w in state.workers.values() if w.registered}
            missing = next((role for role in c.roles if role not in present), None)
            if missing is not None:
                return Acquired(AcquireStatus.UNAVAILABLE, role=missing)
            state.calls[call] = c
            state.serve_queue(claimer=c, ttl_ms=ttl_ms)
        elif c.state is CallState.RESERVED:
            state.hold(c, ttl_ms)

        if c.state is CallState.HELD:
            return Acquired(AcquireStatus.GRANTED, c.fence, dict(c.bundle))
        position = state.position(c)
        if known is None and position is not None and position > queue_max:
            del state.calls[call]
            state.note("refused", call=call)
            return Acquired(AcquireStatus.FULL)
        if known is None:
            state.note("queued", call=call, position=position)
        return Acquired(AcquireStatus.QUEUED, position=position)

    @operation
    def renew(self, call: str, fence: int, ttl_ms: int) -> Renewed:
        c = self.state.held(call, fence)
        if c is None:
            return Renewed(RenewStatus.LOST)
        c.expires_ms = self.state.now + ttl_ms
        c.swapped.clear()
        return Renewed(RenewStatus.OK, tuple(role for role in sorted(c.roles) if self.state.must_move(c, role)))

    @operation
    def swap(self, call: str, fence: int, role: str, ttl_ms: int) -> Swapped:
        c = self.state.held(call, fence)
        if c is None:
            return Swapped(SwapStatus.LOST)
        old = c.bundle.get(role)
        if old is None:
            return Swapped(SwapStatus.NONE)
        if role not in c.swapped or self.state.must_move(c, role):  # else this is a repeat: its reply was lost
            w = self.state.next_in_line(role, avoid=(old.worker, old.boot))
            if w is None:
                return Swapped(SwapStatus.NONE)
            fence_of_role = self.state.next_fence()
            self.state.lease(c, role, w, fence_of_role)
            c.swapped.add(role)
            self.state.note("swapped", call=call, role=role, worker=w.name, fence=fence_of_role, was=old.worker)
        c.expires_ms = self.state.now + ttl_ms
        return Swapped(SwapStatus.OK, c.bundle[role])

    @operation
    def adopt(self, call: str, fence: int, bundle: Bundle, ttl_ms: int) -> AdoptStatus:
        state = self.state
        c = state.calls.get(call)
        if (call, fence) in state.ended:
            return AdoptStatus.TAKEN
        if c is not None and c.state is CallState.HELD:
            if c.fence != fence:
                return AdoptStatus.TAKEN
            c.expires_ms = state.now + ttl_ms
            return AdoptStatus.OK

        lost = {role for role, member in bundle.items() if self._has_ended(member)}
        kept = {role: member for role, member in bundle.items() if role not in lost}
        if HOLDER_ROLE in lost or any(self._is_anothers(member, call) for member in kept.values()):
            return AdoptStatus.TAKEN

        state.raise_fence(fence, *(member.fence for member in bundle.values()))
        roles, expires_ms = tuple(sorted(bundle)), state.now + ttl_ms
        held = Call(call, roles, state.seq, state.now, expires_ms, CallState.HELD, fence, dict(bundle), lost)
        state.calls[call] = held  # in place of what somebody asked for under this name meanwhile
        for role, member in kept.items():
            self._expect(role, member)
            state.slot_fences[member.worker, member.slot] = member.fence
        state.note("adopted", call=call, fence=fence)
        return AdoptStatus.OK

    @operation
    def release(self, call: str, fence: int) -> ReleaseStatus:
        if (c := self.state.held(call, fence)) is not None:
            self.state.end(c, "released")
        return ReleaseStatus.OK

    @operation
    def cancel(self, call: str) -> ReleaseStatus:
        c = self.state.calls.get(call)
        if c is not None and c.state is not CallState.HELD:
            self.state.end(c, "cancelled")
        return ReleaseStatus.OK

    # Watching ------------------------------------------------------------------------------------

    @operation
    def reap(self) -> Reaped:
        return self._overdue

    @operation
    def note(self, kind: str, fields: Mapping[str, str]) -> None:
        self.state.note(kind, **fields)

    @operation
    def lookup(self, call: str) -> Standing:
        c = self.state.calls.get(call)
        if c is None:
            return Standing(CallState.NONE)
        return Standing(c.state, c.fence or None, dict(c.bundle), self.state.position(c), c.expires_ms)

    @operation
    def snapshot(self) -> Snapshot:
        """In the order of names; `last_event` is ''."""
        now = self.state.now
        workers = (
            WorkerRecord(
                *(w.name, w.boot, w.role, w.addr, w.slots, w.state, now - w.heartbeat_ms, w.meta),
                tuple(SlotLease(slot, c.name, c.bundle[role].fence) for slot, c, role in self.state.leases(w.name)),
            )
            for _, w in sorted(self.state.workers.items())
        )
        positions = {c.name: position for position, c in enumerate(self.state.queue(), 1)}
        calls = (
            CallRecord(
                *(c.name, c.state, c.roles, c.fence, dict(c.bundle), c.expires_ms, now - c.since_ms),
                positions.get(c.name),
            )
            for _, c in sorted(self.state.calls.items())
        )
        return Snapshot(now, tuple(workers), tuple(calls), "")

    @operation
    def events(self, since: int, count: int) -> tuple[Entry, ...]:
        """The next `count` entries after the `since` first ones."""
        return self.state.log.after(since, count)

    # Adopting ------------------------------------------------------------------------------------

    def _has_ended(self, member: Member) -> bool:
        """Its boot is over, or has fewer slots than that."""
        w = self.state.workers.get(member.worker)
        if (member.worker, member.boot) in self.state.retired:
            return True
        if w is None:
            return False
        return w.boot != member.boot or w.state is WorkerState.GONE or (w.registered and member.slot >= w.slots)

    def _is_anothers(self, member: Member, call: str) -> bool:
        holders = {slot: c.name for slot, c, _ in self.state.leases(member.worker)}
        last_fence = self.state.slot_fences.get((member.worker, member.slot), 0)
        return holders.get(member.slot, call) != call or last_fence > member.fence

    def _expect(self, role: str, member: Member) -> None:
        """A worker that the registry does not know yet will come and register: its slots are not free until then."""
        w = self.state.workers.get(member.worker)
        slots = member.slot + 1
        if w is None:
            self.state.workers[member.worker] = Worker(
                member.worker, member.boot, role, member.addr, slots, WorkerState.EXPECTED, self.state.now
            )
        elif not w.registered:
            w.slots = max(w.slots, slots)
