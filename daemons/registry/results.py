"""What the registry answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class RegisterStatus(StrEnum):
    CREATED = "CREATED"
    REFRESHED = "REFRESHED"
    STALE_BOOT = "STALE_BOOT"  # a successor has taken this worker's place: end, and do not come back


class HeartbeatStatus(StrEnum):
    OK = "OK"
    UNKNOWN = "UNKNOWN"  # no such worker under this boot: register


class ProbeStatus(StrEnum):
    OK = "OK"
    UNKNOWN = "UNKNOWN"


class DrainStatus(StrEnum):
    """Of drain and deregister."""

    OK = "OK"
    UNKNOWN = "UNKNOWN"


class AcquireStatus(StrEnum):
    GRANTED = "GRANTED"
    QUEUED = "QUEUED"
    FULL = "FULL"
    UNAVAILABLE = "UNAVAILABLE"


class RenewStatus(StrEnum):
    OK = "OK"
    LOST = "LOST"


class SwapStatus(StrEnum):
    OK = "OK"
    NONE = "NONE"
    LOST = "LOST"


class AdoptStatus(StrEnum):
    OK = "OK"
    TAKEN = "TAKEN"


class ReleaseStatus(StrEnum):
    """Of release and cancel: whoever asks owns nothing any more."""

    OK = "OK"


class WorkerState(StrEnum):
    """How a worker stands. Whether it is busy is no state: its leases say so."""

    EXPECTED = "EXPECTED"  # a holder adopted a lease on it; it has not registered yet
    STARTING = "STARTING"
    AVAILABLE = "AVAILABLE"
    UNHEALTHY = "UNHEALTHY"  # gets no new leases and loses none
    DRAINING = "DRAINING"
    GONE = "GONE"  # owns nothing


class CallState(StrEnum):
    NONE = "NONE"
    QUEUED = "QUEUED"
    RESERVED = "RESERVED"  # slots wait for its next acquire
    HELD = "HELD"


@dataclass(frozen=True, slots=True)
class Member:
    """One role's share of a call: a slot of a worker's boot. Its fence is the call's until it is swapped in."""

    worker: str
    addr: str
    slot: int
    boot: str
    fence: int


Bundle = Mapping[str, Member]  # by role


@dataclass(frozen=True, slots=True)
class Lease:
    """What a worker owes to a call. `fence` is this slot's; an agent's is the call's too, and it renews with it."""

    slot: int
    call: str
    fence: int
    bundle: Bundle
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """OK with state and leases, or UNKNOWN."""

    status: HeartbeatStatus
    state: WorkerState | None = None
    leases: tuple[Lease, ...] = ()


@dataclass(frozen=True, slots=True)
class Probed:
    """OK with state, or UNKNOWN."""

    status: ProbeStatus
    state: WorkerState | None = None


@dataclass(frozen=True, slots=True)
class Acquired:
    """GRANTED with fence and bundle, QUEUED with position (1 is next), FULL, or UNAVAILABLE with the role."""

    status: AcquireStatus
    fence: int | None = None
    bundle: Bundle = field(default_factory=dict)
    position: int | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True)
class Renewed:
    """OK with the roles whose member must be replaced, or LOST."""

    status: RenewStatus
    moving: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Swapped:
    """OK with the member that serves the role now, NONE (try again), or LOST (the call itself is gone)."""

    status: SwapStatus
    member: Member | None = None


@dataclass(frozen=True, slots=True)
class Reaped:
    """What this pass has ended: calls, and workers by their new state."""

    ended: tuple[str, ...] = ()
    unhealthy: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How a call stands. HELD and RESERVED have fence and bundle, QUEUED a position; times are the registry's."""

    state: CallState
    fence: int | None = None
    bundle: Bundle = field(default_factory=dict)
    position: int | None = None
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class SlotLease:
    """A slot that is leased or reserved, under the slot's fence."""

    slot: int
    call: str
    fence: int


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    worker: str
    boot: str
    role: str
    addr: str
    slots: int
    state: WorkerState
    hb_age_ms: int
    meta: Mapping[str, Any]
    leases: tuple[SlotLease, ...]

    @property
    def busy(self) -> bool:
        return len(self.leases) >= self.slots


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A call in any state but NONE. `age_ms` counts from its first acquire."""

    call: str
    state: CallState
    roles: tuple[str, ...]
    fence: int
    bundle: Bundle
    expires_ms: int
    age_ms: int
    position: int | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole registry at one moment. `last_event` is where `events` goes on from here."""

    now_ms: int
    workers: tuple[WorkerRecord, ...]
    calls: tuple[CallRecord, ...]
    last_event: str

    @property
    def queue(self) -> tuple[CallRecord, ...]:
        """The calls that wait, next one first."""
        waiting = (call for call in self.calls if call.position is not None)
        return tuple(sorted(waiting, key=lambda call: call.position or 0))


@dataclass(frozen=True, slots=True)
class Event:
    """A line of the audit log. `data` holds what the kind has: call, worker, role, boot, fence, was, why …"""

    id: str
    kind: str
    seq: int
    at_ms: int
    data: Mapping[str, str]
