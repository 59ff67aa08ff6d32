"""What must be true of the registry at every moment, whatever the model says: looked for in what it shows of itself.

That a lost lease is noticed in time is the holder's affair (`daemons/registry/holder.py`), not the scripts'.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from daemons.registry import LEASE_TTL_MS, CallRecord, CallState, Event, Snapshot, WorkerRecord, WorkerState

SILENT_MS = 30_000  # a worker that says nothing for longer owns nothing


class Broken(Exception):
    """An invariant does not hold."""


class Invariants:
    """Hears every line of the audit log and sees snapshots, each after the lines before it. Raises Broken."""

    def __init__(self) -> None:
        self._fences: dict[tuple[str, int], int] = {}  # (worker, slot) → highest
        self._told: Mapping[tuple[str, str], int] = {}  # (worker, boot) → highest before the data were lost
        self._adopted: set[str] = set()  # calls whose grants are older than the registry's data
        self._boots: dict[str, list[str]] = {}  # of each worker, in the order of their coming
        self._order: dict[str, int] = {}  # waiting call → its place among all that ever waited
        self._reserved: dict[str, int] = {}  # the same of calls that may have to wait again
        self._tickets = 0

    def lose_data(self, told: Mapping[tuple[str, str], int]) -> None:
        """A registry that has lost its data knows no order and no former boots, but each worker brings back the
        highest fence that it was told: (worker, boot) → fence. Grants made from now on lie above it.
        """
        self._told = dict(told)
        self._fences.clear()
        self._adopted.clear()
        self._boots.clear()
        self._order.clear()
        self._reserved.clear()

    def pass_a_day(self) -> None:
        """Workers that were gone are forgotten, with their boots, which nobody has retired, and their fences."""
        self._fences.clear()
        self._boots.clear()

    def see(self, snapshot: Snapshot) -> None:
        calls = {call.call: call for call in snapshot.calls}
        _demand(len({worker.worker for worker in snapshot.workers}) == len(snapshot.workers), "a worker stands twice")
        for worker in snapshot.workers:
            self._see_worker(worker, calls)
        for call in snapshot.calls:
            _see_call(call, snapshot.now_ms)
        positions = [call.position for call in snapshot.queue]
        _demand(positions == list(range(1, len(positions) + 1)), f"the queue has places {positions}")

    def _see_worker(self, worker: WorkerRecord, calls: dict[str, CallRecord]) -> None:
        name = worker.worker
        taken = Counter(lease.slot for lease in worker.leases)
        _demand(len(worker.leases) <= worker.slots, f"{name} has more leases than slots")
        _demand(max(taken.values(), default=1) == 1, f"a slot of {name} is leased twice")
        _demand(all(0 <= slot < worker.slots for slot in taken), f"{name} has no such slot")
        _demand(not (worker.leases and worker.state is WorkerState.GONE), f"{name} is GONE and owns something")
        _demand(not (worker.leases and worker.hb_age_ms > SILENT_MS), f"{name} is silent and owns something")
        for lease in worker.leases:
            member = calls[lease.call].bundle[worker.role] if lease.call in calls else None
            shown = (name, lease.slot, worker.boot, lease.fence)
            known = member and (member.worker, member.slot, member.boot, member.fence)
            _demand(known == shown, f"{lease.call} knows nothing of its lease {shown}")
            at = (name, lease.slot)
            _demand(lease.fence >= self._fences.get(at, 0), f"the fence of {at} has fallen")
            self._fences[at] = lease.fence
            is_new = lease.call not in self._adopted
            told = self._told.get((name, worker.boot), 0)
            _demand(not is_new or lease.fence > told, f"the fence of {at} has fallen when data were lost")

        boots = self._boots.setdefault(name, [worker.boot])
        if worker.boot != boots[-1]:
            _demand(worker.boot not in boots, f"{worker.boot} has come back")
            boots.append(worker.boot)

    def hear(self, events: Iterable[Event]) -> None:
        """Grants are first come, first served: nobody gets slots while another waits in front."""
        for event in events:
            call = event.data.get("call", "")
            match event.kind:
                case "queued":
                    self._order[call] = self._reserved.pop(call, self._tickets)
                    self._tickets += 1
                case "reserved" | "granted" if event.data.get("was") != CallState.RESERVED:
                    place = self._order.pop(call, self._tickets)
                    passed = [waiting for waiting, other in self._order.items() if other < place]
                    _demand(not passed, f"{call} was served before {passed} (#{event.seq})")
                    if event.kind == "reserved":
                        self._reserved[call] = place
                case "expired" | "cancelled" | "adopted" | "granted":
                    self._order.pop(call, None)
                    self._reserved.pop(call, None)
            if event.kind == "adopted":
                self._adopted.add(call)
            elif event.kind in ("released", "lost"):
                self._adopted.discard(call)


def _see_call(call: CallRecord, now_ms: int) -> None:
    left_ms = call.expires_ms - now_ms
    _demand(0 < left_ms <= LEASE_TTL_MS, f"{call.call} has {left_ms} ms left")
    waits = call.state is CallState.QUEUED
    _demand((call.position is not None) == waits, f"{call.call} is {call.state} at {call.position}")
    _demand(set(call.bundle) == (set() if waits else set(call.roles)), f"{call.call} has not all of its roles")


def unchanged(before: Snapshot, after: Snapshot) -> None:
    """Both of the same moment, and a worker that was known has registered in between: no lease may differ."""
    owners = [{worker.worker: worker.leases for worker in snapshot.workers} for snapshot in (before, after)]
    _demand(owners[0] == owners[1], "a repeated register has changed leases")
    _demand(sorted(before.calls, key=_name) == sorted(after.calls, key=_name), "a repeated register has changed calls")


def _name(call: CallRecord) -> str:
    return call.call


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
