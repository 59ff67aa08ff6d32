"""What the model knows, and the steps that its operations share.

There is one source of truth for occupancy, the calls: a slot is taken because a call's bundle says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from daemons.registry import CallState, Member, Reaped, WorkerState
from ops.drill.registry.audit import AuditLog

MAX_STEP_MS = 2_000
TICKET_MS = RESERVATION_MS = 6_000
SILENT_MS, GONE_MS = 10_000, 30_000  # age of a worker's last heartbeat
ENDED_MS = 60_000  # so long a grant that is over is remembered
DAY_MS = 24 * 3600 * 1000  # so long a worker that is gone is remembered
EPOCH_FENCES = 1_000_000
HOLDER_ROLE = "agent"


@dataclass
class Worker:
    name: str
    boot: str
    role: str
    addr: str
    slots: int
    state: WorkerState
    heartbeat_ms: int
    meta: Mapping[str, Any] = field(default_factory=dict)
    granted: int = 0  # fence of the last grant: the lowest is next in line
    ready: bool = False
    good_probes: int = 0
    bad_probes: int = 0
    gone_since_ms: int = 0

    @property
    def registered(self) -> bool:
        return self.state not in (WorkerState.GONE, WorkerState.EXPECTED)


@dataclass
class Call:
    name: str
    roles: tuple[str, ...]
    ticket: int
    since_ms: int
    expires_ms: int
    state: CallState = CallState.QUEUED
    fence: int = 0
    bundle: dict[str, Member] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)  # roles whose member stands in the bundle, but is the call's no more
    swapped: set[str] = field(default_factory=set)  # roles that were replaced since the last renewal


class State:
    """`real_ms` is what the scripts are given for TIME."""

    def __init__(self, real_ms: Callable[[], int]) -> None:
        self._real_ms = real_ms
        self.lose_data()

    # What happens to the server ------------------------------------------------------------------

    def lose_data(self) -> None:
        self.seq = 0
        self.now = self.last_real_ms = -1  # until the first operation
        self.fence = 0
        self.other_server = False
        self.workers: dict[str, Worker] = {}
        self.calls: dict[str, Call] = {}
        self.retired: set[tuple[str, str]] = set()  # (worker, boot)
        self.slot_fences: dict[tuple[str, int], int] = {}
        self.ended: dict[tuple[str, int], int] = {}  # (call, fence) → since when
        self.log = AuditLog()

    def change_server(self) -> None:
        """Redis comes back under another run id: it may have forgotten the last grants."""
        self.other_server = True

    # Time ----------------------------------------------------------------------------------------

    def move_time(self) -> None:
        """What is seen of the real time is its way forward, at most MAX_STEP_MS between two operations."""
        real_ms = self._real_ms()
        if self.now < 0:
            self.now = real_ms
        else:
            self.now += min(max(real_ms - self.last_real_ms, 0), MAX_STEP_MS)
        self.last_real_ms = real_ms
        self.seq += 1

    def end_what_is_overdue(self) -> Reaped:
        """Calls that nobody asked for or renewed in time, then workers that have fallen silent."""
        overdue = sorted((c.expires_ms, c.name) for c in self.calls.values() if c.expires_ms <= self.now)
        for _, name in overdue:
            c = self.calls[name]
            self.end(c, "lost" if c.state is CallState.HELD else "expired")

        unhealthy, gone = [], []
        listed = [w for w in self.workers.values() if w.state is not WorkerState.GONE]
        for w in sorted(listed, key=lambda w: (w.heartbeat_ms, w.name)):
            silent_ms = self.now - w.heartbeat_ms
            if silent_ms > GONE_MS:
                self.to_gone(w)
                gone.append(w.name)
            elif silent_ms > SILENT_MS and w.state in (WorkerState.AVAILABLE, WorkerState.STARTING):
                w.good_probes = 0  # good probes of the time before say nothing about the silence
                self.enter(w, WorkerState.UNHEALTHY)
                unhealthy.append(w.name)
        self._forget()
        return Reaped(tuple(name for _, name in overdue), tuple(unhealthy), tuple(gone))

    def _forget(self) -> None:
        for key in [key for key, since_ms in self.ended.items() if self.now - since_ms >= ENDED_MS]:
            del self.ended[key]
        for w in list(self.workers.values()):
            if w.state is WorkerState.GONE and self.now - w.gone_since_ms >= DAY_MS:
                del self.workers[w.name]
                for at in [at for at in self.slot_fences if at[0] == w.name]:
                    del self.slot_fences[at]

    # Workers -------------------------------------------------------------------------------------

    def registered(self, worker: str, boot: str) -> Worker | None:
        w = self.workers.get(worker)
        return w if w is not None and w.boot == boot and w.registered else None

    def leases(self, worker: str) -> list[tuple[int, Call, str]]:
        """(slot, call, role) of what is held or reserved on a worker, in the order of its slots."""
        taken = [
            (member.slot, c, role)
            for c in self.calls.values()
            for role, member in c.bundle.items()
            if member.worker == worker and role not in c.lost
        ]
        return sorted(taken, key=lambda lease: lease[0])

    def next_in_line(self, role: str, avoid: tuple[str, str] | None = None) -> Worker | None:
        """The least recently granted worker of the role that is available and has a slot free; not boot `avoid`."""
        free = [
            w
            for w in self.workers.values()
            if w.role == role
            and w.state is WorkerState.AVAILABLE
            and (w.name, w.boot) != avoid
            and len(self.leases(w.name)) < w.slots
        ]
        return min(free, key=lambda w: (w.granted, w.name), default=None)

    def enter(self, w: Worker, state: WorkerState) -> None:
        if w.state is not state:
            was, w.state = w.state, state
            self.note(state.lower(), worker=w.name, role=w.role, boot=w.boot, was=was)

    def to_gone(self, w: Worker) -> None:
        if w.state is not WorkerState.GONE:
            self.enter(w, WorkerState.GONE)
            w.gone_since_ms = self.now
            self.revoke(w.name)

    def revoke(self, worker: str, from_slot: int = 0) -> None:
        """Whoever has these slots loses them; with the holder's the whole call ends, and a reservation waits again."""
        for slot, c, role in self.leases(worker):
            if slot < from_slot:
                continue
            if c.state is CallState.RESERVED:
                self.wait_again(c)
            elif role == HOLDER_ROLE:
                self.end(c, "lost")
            else:
                c.lost.add(role)
                fence = c.bundle[role].fence
                self.note("revoked", call=c.name, worker=worker, role=role, fence=fence)

    # Fences --------------------------------------------------------------------------------------

    def next_fence(self) -> int:
        if self.other_server:
            self.other_server = False
            self.fence += EPOCH_FENCES
        self.fence += 1
        return self.fence

    def raise_fence(self, *seen: int) -> None:
        self.fence = max(self.fence, *seen)

    # Calls ---------------------------------------------------------------------------------------

    def held(self, call: str, fence: int) -> Call | None:
        c = self.calls.get(call)
        return c if c is not None and c.state is CallState.HELD and c.fence == fence else None

    def must_move(self, c: Call, role: str) -> bool:
        return role in c.lost or self.workers[c.bundle[role].worker].state is WorkerState.DRAINING

    def queue(self) -> list[Call]:
        return sorted((c for c in self.calls.values() if c.state is CallState.QUEUED), key=lambda c: c.ticket)

    def position(self, c: Call) -> int | None:
        return self.queue().index(c) + 1 if c.state is CallState.QUEUED else None

    def serve_queue(self, claimer: Call | None = None, ttl_ms: int = 0) -> None:
        """First come, first served, for as long as the first can be: who asks right now holds, the others may claim."""
        for c in self.queue():
            chosen = {role: self.next_in_line(role) for role in c.roles}
            if not all(chosen.values()):
                return
            c.fence = self.next_fence()
            for role, w in chosen.items():
                if w is not None:
                    self.lease(c, role, w, c.fence)
            if c is claimer:
                self.hold(c, ttl_ms)
            else:
                c.state, c.expires_ms = CallState.RESERVED, self.now + RESERVATION_MS
                self.note("reserved", call=c.name, fence=c.fence)

    def lease(self, c: Call, role: str, w: Worker, fence: int) -> None:
        """Give the call a slot of this worker for the role, in place of what it had."""
        if role in c.bundle:
            c.lost.add(role)
        taken = {slot for slot, _, _ in self.leases(w.name)}
        slot = min(set(range(w.slots)) - taken)
        c.bundle[role] = Member(w.name, w.addr, slot, w.boot, fence)
        c.lost.discard(role)
        w.granted = self.slot_fences[w.name, slot] = fence

    def hold(self, c: Call, ttl_ms: int) -> None:
        was, c.state, c.expires_ms = c.state, CallState.HELD, self.now + ttl_ms
        members = " ".join(f"{role}={c.bundle[role].worker}/{c.bundle[role].slot}" for role in c.roles)
        waited_ms = self.now - c.since_ms
        self.note("granted", call=c.name, fence=c.fence, was=was, waited_ms=waited_ms, members=members)

    def wait_again(self, c: Call) -> None:
        """A reservation that cannot be kept: back to the place that the call had."""
        c.state, c.fence = CallState.QUEUED, 0
        c.bundle.clear()
        self.note("queued", call=c.name)

    def end(self, c: Call, kind: str) -> None:
        if c.state is CallState.HELD:
            self.ended[c.name, c.fence] = self.now
        del self.calls[c.name]
        self.note(kind, call=c.name, fence=c.fence, was=c.state)

    # The audit log -------------------------------------------------------------------------------

    def note(self, event_kind: str, **fields: object) -> None:
        self.log.write(event_kind, self.seq, self.now, {name: str(value) for name, value in fields.items()})
