"""The life of a small registry, as Hypothesis leads it: rules are what clients, clocks and servers may do next."""

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daemons.registry import LEASE_TTL_MS, RegisterStatus
from ops.drill.registry.clients import CALLS, FLEET, ROLES, Clients, Fault, Grant, Op, Process
from ops.drill.registry.invariants import unchanged
from ops.drill.registry.sides import BlockingRedis, SideBySide

GAPS_MS = (1, 300, 999, 2000, 5000, -1, -60_000, 10**10, -(10**10))
REPEATABLE = {"heartbeat", "acquire", "renew", "swap", "adopt", "release", "cancel", "drain", "deregister", "lookup"}

workers = st.sampled_from(tuple(FLEET))
calls = st.sampled_from(CALLS[:6])
ages = st.sampled_from((0, 0, 0, 1, 2))  # of what somebody believes in; 0 is the latest
ttls_ms = st.sampled_from((LEASE_TTL_MS, LEASE_TTL_MS, 2500))


class RegistryLife(RuleBasedStateMachine):
    """Each step goes to the scripts and to their model; then everything that they show is compared."""

    def __init__(self, redis: BlockingRedis, steps: "Counter[str]") -> None:
        super().__init__()
        self.sides = SideBySide(redis)
        self.clients = Clients()
        self.steps = steps
        self.last: tuple[Op, Any] | None = None
        self.data_lost = False
        for worker, role in FLEET.items():
            self.restart(worker, slots=2 if role == "agent" else 1)
            self.heartbeat(worker, 0, ready=True)

    def ask(self, name: str, *args: Any) -> Any:
        return self.do(Op(name, args))

    def do(self, op: Op) -> Any:
        answer = self.sides.do(op)
        self.clients.learn(op, answer)
        self.last = op, answer
        self.steps[op.name] += 1
        return answer

    def process(self, worker: str, age: int) -> Process:
        """One that runs, or one that ran and does not know that it is over."""
        former = [process for process in self.clients.former if process.worker == worker]
        return former[-age] if 0 < age <= len(former) else self.clients.running[worker]

    def grant(self, call: str, age: int) -> Grant:
        """What a holder believes that it holds; a stranger's guess when nobody holds the call."""
        known = self.clients.grants[call]
        return known[-1 - age] if age < len(known) else Grant(call, 1, {})

    @invariant()
    def both_look_alike(self) -> None:
        self.sides.look()
        self.steps["looks"] += 1

    # Time ----------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from(GAPS_MS))
    def the_clock_moves(self, ms: int) -> None:
        self.sides.now_ms += ms
        self.last = None

    @rule(seconds=st.sampled_from((6, 10, 16, 32)), beating=st.booleans())
    def time_passes(self, seconds: int, beating: bool) -> None:
        for second in range(0, seconds, 2):
            self.sides.now_ms += 2000
            self.ask("reap")
            if beating and second % 8 == 0:
                self.everyone_beats()

    # Workers -------------------------------------------------------------------------------------

    @rule(worker=workers, age=ages)
    def register(self, worker: str, age: int) -> None:
        process = self.process(worker, age)
        before = self.sides.look()
        answer = self.do(self.clients.register(process))
        if answer is RegisterStatus.REFRESHED:
            unchanged(before, self.sides.look())

    @rule(worker=workers, slots=st.integers(1, 3))
    def restart(self, worker: str, slots: int) -> None:
        self.do(self.clients.register(self.clients.start(worker, FLEET[worker], slots)))

    @rule(worker=workers, age=ages, ready=st.booleans())
    def heartbeat(self, worker: str, age: int, ready: bool) -> None:
        self.ask("heartbeat", worker, self.process(worker, age).boot, ready)

    @rule()
    def everyone_beats(self) -> None:
        for process in self.clients.running.values():
            self.ask("heartbeat", process.worker, process.boot, True)

    @rule(worker=workers, age=ages, ok=st.booleans(), times=st.integers(1, 3))
    def probe(self, worker: str, age: int, ok: bool, times: int) -> None:
        for _ in range(times):
            self.ask("probe", worker, self.process(worker, age).boot, ok)

    @rule(worker=workers, age=ages)
    def drain(self, worker: str, age: int) -> None:
        self.ask("drain", worker, self.process(worker, age).boot)

    @rule(worker=workers, age=ages)
    def deregister(self, worker: str, age: int) -> None:
        self.ask("deregister", worker, self.process(worker, age).boot)

    # Calls ---------------------------------------------------------------------------------------

    @rule(call=calls, roles=st.sampled_from(ROLES), ttl_ms=ttls_ms, queue_max=st.sampled_from((10, 10, 1, 0)))
    def acquire(self, call: str, roles: tuple[str, ...], ttl_ms: int, queue_max: int) -> None:
        self.ask("acquire", call, roles, ttl_ms, queue_max)

    @rule(roles=st.sampled_from(ROLES))
    def everyone_asks(self, roles: tuple[str, ...]) -> None:
        for call in CALLS[:6]:
            self.ask("acquire", call, roles, LEASE_TTL_MS, 10)

    @rule(call=calls, age=ages, ttl_ms=ttls_ms)
    def renew(self, call: str, age: int, ttl_ms: int) -> None:
        self.ask("renew", call, self.grant(call, age).fence, ttl_ms)

    @rule(call=calls, age=ages, role=st.sampled_from(("tts", "stt", "agent")), ttl_ms=ttls_ms)
    def swap(self, call: str, age: int, role: str, ttl_ms: int) -> None:
        self.ask("swap", call, self.grant(call, age).fence, role, ttl_ms)

    @rule(call=calls, age=ages, ttl_ms=ttls_ms)
    def adopt(self, call: str, age: int, ttl_ms: int) -> None:
        grant = self.grant(call, age)
        if grant.bundle:
            self.ask("adopt", call, grant.fence, dict(grant.bundle), ttl_ms)

    @rule(call=calls, age=ages)
    def release(self, call: str, age: int) -> None:
        self.ask("release", call, self.grant(call, age).fence)

    @rule(call=calls)
    def cancel(self, call: str) -> None:
        self.ask("cancel", call)

    @rule(call=calls)
    def lookup(self, call: str) -> None:
        self.ask("lookup", call)

    # Replies, servers ----------------------------------------------------------------------------

    @precondition(lambda self: self.last is not None and self.last[0].name in REPEATABLE)
    @rule()
    def the_reply_was_lost(self) -> None:
        """So it is asked again, and the answer is what it would have been."""
        if self.last is not None:
            op, answer = self.last
            assert self.do(op) == answer

    @rule()
    def note(self) -> None:
        self.ask("note", "stalled", {"program": "tts", "why": "a test says so"})

    @rule(fault=st.sampled_from(Fault))
    def the_server_fails(self, fault: Fault) -> None:
        match fault:
            case Fault.LOSE_DATA:
                self.sides.lose_data(self.clients.seen_fences)
                self.clients.last_event = "0-0"
                self.data_lost = True
            case Fault.FORGET_SCRIPTS:
                self.sides.forget_scripts()
            case Fault.CHANGE_SERVER:
                self.sides.change_server()
            case Fault.PASS_A_DAY:
                self.sides.pass_a_day()
        self.steps[fault] += 1
        self.last = None

    @precondition(lambda self: self.data_lost)
    @rule()
    def everyone_comes_back(self) -> None:
        """Workers register once, holders adopt."""
        self.data_lost = False
        for process in self.clients.running.values():
            self.do(self.clients.register(process))
        for call in CALLS[:6]:
            self.adopt(call, 0, LEASE_TTL_MS)
        self.everyone_beats()
