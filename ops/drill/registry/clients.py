"""What the registry's clients know, and what they do next: the operations of a drill.

Workers, holders and callers know only what they were told. So they come with fences that are over, boots that were
retired, and bundles of a registry that has lost its data since.
"""

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NamedTuple

from daemons.registry import (
    LEASE_TTL_MS,
    Acquired,
    AdoptStatus,
    Event,
    Heartbeat,
    HeartbeatStatus,
    Member,
    RegisterStatus,
    Renewed,
    RenewStatus,
    Snapshot,
    Swapped,
    WorkerState,
)

FLEET = {"a:1": "agent", "a:2": "agent", "s:1": "stt", "t:1": "tts", "t:2": "tts", "t:3": "tts"}
CALLS = tuple(f"c{number}" for number in range(10))
ROLES = (("agent", "stt", "tts"), ("agent", "tts"), ("tts",), ("stt", "tts"), ("agent",), ("tts", "lab"))
FORMER = 3  # so many earlier boots or grants are still believed in by someone


class Fault(StrEnum):
    """What may happen to the registry's server between two operations."""

    LOSE_DATA = "lose_data"
    FORGET_SCRIPTS = "forget_scripts"
    CHANGE_SERVER = "change_server"  # it comes back under another run id
    PASS_A_DAY = "pass_a_day"  # noqa: S105 - no secret


class Op(NamedTuple):
    """A method of `Registry` with its arguments, or something that happens to its server."""

    name: str
    args: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.args))})"


@dataclass(frozen=True)
class Process:
    worker: str
    boot: str
    role: str
    slots: int


@dataclass
class Grant:
    call: str
    fence: int
    bundle: dict[str, Any]


@dataclass
class Clients:
    """Who takes part, and what each was told last."""

    running: dict[str, Process] = field(default_factory=dict)
    former: deque[Process] = field(default_factory=lambda: deque(maxlen=2 * FORMER))
    grants: dict[str, deque[Grant]] = field(default_factory=lambda: {call: deque(maxlen=FORMER) for call in CALLS})
    seen_fences: dict[tuple[str, str], int] = field(default_factory=dict)  # (worker, boot) → highest
    last_event: str = "0-0"
    _boots: int = 0

    def start(self, worker: str, role: str, slots: int) -> Process:
        """A new process takes the worker's place."""
        if worker in self.running:
            self.former.append(self.running[worker])
        self._boots += 1
        self.running[worker] = Process(worker, f"{worker}#{self._boots}", role, slots)
        return self.running[worker]

    def register(self, process: Process) -> Op:
        worker, boot, role, slots = process.worker, process.boot, process.role, process.slots
        max_fence = self.seen_fences.get((worker, boot), 0)
        return Op("register", (worker, boot, role, f"http://{worker}", slots, max_fence, {"boot": boot}))

    def learn(self, op: Op, answer: object) -> None:
        """What the one who asked now knows."""
        match answer:
            case Acquired(fence=int() as fence, bundle=bundle):
                self._hold(Grant(op.args[0], fence, dict(bundle)))
            case Swapped(member=Member() as member):
                call, fence, role = op.args[:3]
                for grant in self.grants[call]:
                    if grant.fence == fence:
                        grant.bundle[role] = member
                self._see(member.worker, member.boot, member.fence)
            case Heartbeat(leases=leases):
                for lease in leases:
                    self._see(op.args[0], op.args[1], lease.fence)
            case Snapshot(last_event=last_event):
                self.last_event = last_event
            case (*_, Event(id=last_event)):
                self.last_event = last_event
        if op.name == Fault.LOSE_DATA:
            self.last_event = "0-0"

    def give_up(self, call: str, fence: int) -> None:
        """The holder has understood that this is over."""
        known = self.grants[call]
        for grant in [grant for grant in known if grant.fence == fence]:
            known.remove(grant)

    def _hold(self, grant: Grant) -> None:
        known = self.grants[grant.call]
        if not known or known[-1].fence != grant.fence:
            known.append(grant)
        else:
            known[-1] = grant
        for member in grant.bundle.values():
            self._see(member.worker, member.boot, member.fence)

    def _see(self, worker: str, boot: str, fence: int) -> None:
        self.seen_fences[worker, boot] = max(self.seen_fences.get((worker, boot), 0), fence)


class Traffic:
    """An endless, seeded stream of operations that leads a small registry through all its states.

    `next` is what someone does now, `learn` what came of it, `gap_ms` how far their clocks move until then: mostly
    a little, at times back, at times a year forward. `faults` names what may happen to the server, with its weight.
    """

    def __init__(self, rng: random.Random, faults: Mapping[Fault, float]) -> None:
        self.clients = Clients()
        self._rng = rng
        self._due: deque[Op] = deque()
        self._silent = 0  # so many steps of silence are left
        self._away: set[str] = set()  # workers that do not notice for a while that the registry has lost its data
        chances: dict[Callable[[], Op], float] = {
            self._everyone_beats: 7,
            self._everyone_renews: 4,
            self._register: 3,
            self._probe: 8,
            self._acquire: 24,
            self._renew: 4,
            self._swap: 6,
            self._adopt: 4,
            self._release: 5,
            self._cancel: 3,
            self._drain: 1,
            self._deregister: 0.7,
            self._note: 0.5,
            self._silence: 0.4,
            lambda: Op("reap"): 2,
            lambda: Op("snapshot"): 1,
            lambda: Op("lookup", (self._rng.choice(CALLS),)): 2,
            lambda: Op("events", (self.clients.last_event, 50)): 2,
        }
        chances |= {lambda fault=fault: Op(fault): weight for fault, weight in faults.items()}  # type: ignore[misc]
        self._choices, self._weights = list(chances), list(chances.values())
        for worker, role in FLEET.items():
            self._due.append(self.clients.register(self.clients.start(worker, role, slots=2)))

    def next(self) -> Op:
        if self._due:
            return self._due.popleft()
        op = self._rng.choices(self._choices, self._weights)[0]()
        if self._rng.random() < 0.08:  # its reply is lost, so it is asked again
            self._due.appendleft(op)
        return op

    def gap_ms(self) -> int:
        if self._silent:
            self._silent -= 1
            return 2000
        luck = self._rng.random()
        if luck < 0.65:
            return 0
        if luck < 0.965:
            return self._rng.randrange(1, 400)
        if luck < 0.99:
            return self._rng.choice((1000, 1999, 2000, 2500))
        return self._rng.choice((-1, -700, -60_000, -(10**10), 10**10, 3_600_000))

    def learn(self, op: Op, answer: object) -> None:
        self.clients.learn(op, answer)
        if op.name == Fault.LOSE_DATA:
            self._away = set(self._rng.sample(list(FLEET), self._rng.randrange(len(FLEET) - 1)))
        elif op.name == Fault.PASS_A_DAY and self._rng.random() < 0.5:
            self._due.append(op)
        match answer:
            case Heartbeat(status=HeartbeatStatus.UNKNOWN) if self._rng.random() < 0.7:
                process = self.clients.running[op.args[0]]
                if process.boot == op.args[1]:
                    self._due.append(self.clients.register(self._as_configured(process)))
            case Heartbeat(state=WorkerState.UNHEALTHY) if self._rng.random() < 0.2:
                self._due.extend([Op("probe", (*op.args[:2], True))] * 2)
            case Heartbeat(state=WorkerState.DRAINING) if self._rng.random() < 0.2:
                process = self.clients.running[op.args[0]]
                self._due.append(self.clients.register(self.clients.start(process.worker, process.role, slots=2)))
            case Renewed(status=RenewStatus.LOST) if self._rng.random() < 0.6:
                self._due.extend(self._adopt_of(grant) for grant in self._grants_of(op.args[0], op.args[1]))
            case Swapped(member=Member(worker=worker, boot=boot)) if self._rng.random() < 0.1:
                self._due.extend([Op(self._rng.choice(("drain", "deregister")), (worker, boot)), op])
            case RegisterStatus.CREATED if self._rng.random() < 0.05:
                self._due.extend(Op("probe", (*op.args[:2], ok)) for ok in (False, False, False, True, True))
            case AdoptStatus.TAKEN if self._rng.random() < 0.6:
                self.clients.give_up(op.args[0], op.args[1])
            case Renewed(moving=moving) if moving and self._rng.random() < 0.6:
                call, fence, ttl_ms = op.args
                self._due.extend(Op("swap", (call, fence, role, ttl_ms)) for role in moving)

    # Who does what -------------------------------------------------------------------------------

    def _someone(self) -> Process:
        """A process that runs; now and then one that should not any more."""
        if self.clients.former and self._rng.random() < 0.08:
            return self._rng.choice(self.clients.former)
        return self.clients.running[self._rng.choice(list(FLEET))]

    def _grant(self) -> Grant:
        """Something that a holder believes in; now and then a stranger's guess."""
        call = self._rng.choice(CALLS)
        known = self.clients.grants[call]
        if not known or self._rng.random() < 0.02:
            return Grant(call, self._rng.randrange(1, 50), {})
        return known[-1] if self._rng.random() < 0.85 else self._rng.choice(known)

    def _grants_of(self, call: str, fence: int) -> list[Grant]:
        return [grant for grant in self.clients.grants[call] if grant.fence == fence]

    def _ttl_ms(self) -> int:
        return LEASE_TTL_MS if self._rng.random() < 0.8 else self._rng.randrange(500, LEASE_TTL_MS)

    def _everyone_beats(self) -> Op:
        if self._rng.random() < 0.1:
            self._away.clear()
        running = [process for process in self.clients.running.values() if process.worker not in self._away]
        ready = self._rng.random() < 0.9
        beats = [Op("heartbeat", (process.worker, process.boot, ready)) for process in running]
        self._due.extend(beats[1:])
        return beats[0]

    def _everyone_renews(self) -> Op:
        held = [known[-1] for known in self.clients.grants.values() if known]
        renewals = [Op("renew", (grant.call, grant.fence, LEASE_TTL_MS)) for grant in held] or [Op("reap")]
        self._due.extend(renewals[1:])
        return renewals[0]

    def _silence(self) -> Op:
        """Nobody says anything for up to half a minute."""
        self._silent = self._rng.randrange(3, 17)
        self._due.extend([Op("reap")] * (self._silent - 1))
        return Op("reap")

    def _register(self) -> Op:
        process = self._someone()
        if self._rng.random() < 0.4:
            role = process.role if self._rng.random() < 0.97 else self._rng.choice(("agent", "stt", "tts"))
            process = self.clients.start(process.worker, role, self._rng.choice((1, 1, 2, 3)))
        return self.clients.register(self._as_configured(process))

    def _as_configured(self, process: Process) -> Process:
        """Its slots are a setting, which may have become less since the registry has lost its data."""
        return replace(process, slots=1) if self._rng.random() < 0.1 else process

    def _probe(self) -> Op:
        process = self._someone()
        op = Op("probe", (process.worker, process.boot, self._rng.random() < 0.6))
        self._due.extend([op] * self._rng.choice((0, 0, 1, 2)))
        return op

    def _acquire(self) -> Op:
        roles = self._rng.choices(ROLES, (10, 3, 5, 2, 1, 0.5))[0]
        return Op("acquire", (self._rng.choice(CALLS), roles, self._ttl_ms(), self._rng.choice((0, 2, 5, 10))))

    def _renew(self) -> Op:
        grant = self._grant()
        return Op("renew", (grant.call, grant.fence, self._ttl_ms()))

    def _swap(self) -> Op:
        grant = self._grant()
        return Op("swap", (grant.call, grant.fence, self._rng.choice(("tts", "tts", "stt", "agent")), self._ttl_ms()))

    def _adopt(self) -> Op:
        known = [grant for grants in self.clients.grants.values() for grant in grants]
        return self._adopt_of(self._rng.choice(known)) if known else Op("reap")

    def _adopt_of(self, grant: Grant) -> Op:
        return Op("adopt", (grant.call, grant.fence, dict(grant.bundle), LEASE_TTL_MS))

    def _release(self) -> Op:
        grant = self._grant()
        return Op("release", (grant.call, grant.fence))

    def _cancel(self) -> Op:
        return Op("cancel", (self._rng.choice(CALLS),))

    def _drain(self) -> Op:
        process = self._someone()
        return Op("drain", (process.worker, process.boot))

    def _deregister(self) -> Op:
        process = self._someone()
        return Op("deregister", (process.worker, process.boot))

    def _note(self) -> Op:
        return Op("note", (self._rng.choice(("fatal", "stalled")), {"program": "tts", "why": "the drill says so"}))
