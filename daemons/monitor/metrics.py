"""The registry as Prometheus sees it."""

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from daemons.registry import CallState, Event, Snapshot, WorkerState


class RegistryMetrics:
    def __init__(self, metrics: CollectorRegistry) -> None:
        self._workers = Gauge("callbox_workers", "Workers by state", ["role", "state"], registry=metrics)
        self._slots = Gauge("callbox_slots", "Slots of workers that are not gone", ["role"], registry=metrics)
        self._leases = Gauge("callbox_leases", "Slots that are leased or reserved", ["role"], registry=metrics)
        self._calls = Gauge("callbox_calls", "Calls by state", ["state"], registry=metrics)
        self._queue_length = Gauge("callbox_queue_length", "Calls that wait for slots", registry=metrics)
        self._oldest_wait = Gauge(
            "callbox_queue_oldest_wait_seconds", "How long the longest of them waits", registry=metrics
        )
        self._events = Counter("callbox_registry_events_total", "Lines of the audit log", ["kind"], registry=metrics)
        self._grants = Counter("callbox_grants_total", "Calls that were given their slots", registry=metrics)
        self._losses = Counter(
            "callbox_losses_total", "Leases that ended other than by their holder's word", ["what"], registry=metrics
        )
        for what in ("call", "member"):
            self._losses.labels(what)

    def show(self, snapshot: Snapshot) -> None:
        roles = {worker.role for worker in snapshot.workers}
        by_state = Tally((worker.role, worker.state) for worker in snapshot.workers)
        self._workers.clear()
        self._slots.clear()
        self._leases.clear()
        for role in roles:
            present = [worker for worker in snapshot.workers if worker.role == role]
            for state in WorkerState:
                self._workers.labels(role, state.value.lower()).set(by_state[role, state])
            self._slots.labels(role).set(sum(w.slots for w in present if w.state is not WorkerState.GONE))
            self._leases.labels(role).set(sum(len(worker.leases) for worker in present))
        stages = Tally(call.state for call in snapshot.calls)
        for stage in (CallState.QUEUED, CallState.RESERVED, CallState.HELD):
            self._calls.labels(stage.value.lower()).set(stages[stage])
        queue = snapshot.queue
        self._queue_length.set(len(queue))
        self._oldest_wait.set(max((call.age_ms for call in queue), default=0) / 1000)

    def count(self, events: Iterable[Event]) -> None:
        for event in events:
            self._events.labels(event.kind).inc()
            if event.kind == "granted":
                self._grants.inc()
            elif event.kind == "lost":  # a call's lease ran out, or its agent died
                self._losses.labels("call").inc()
            elif event.kind == "revoked":  # one member died
                self._losses.labels("member").inc()
