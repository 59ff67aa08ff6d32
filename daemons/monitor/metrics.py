"""The registry as Prometheus sees it.

Gauges are made of the registry's latest snapshot, and of its whole audit log what happened last: so neither a restart
of the monitor nor a second one changes what they say, and alerts rest on them. Counters begin with the process.
"""

import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from daemons.registry import CallState, Event, Snapshot, WorkerRecord, WorkerState
from daemons.wire import CALL_ROLES, ProgramEvent

STALE_S = 5.0  # an older snapshot says nothing about now
LOSSES = {"lost": "call", "revoked": "member"}  # kinds of events: a call and all it held, or one worker's share of it
GOODBYE = "deregistered"  # why a worker is gone that ended as it should
# What the listener notes of a program, and what it notes when that is over; the others say how long they are news
TROUBLES: dict[str, ProgramEvent | None] = {
    ProgramEvent.CRASH_LOOP: ProgramEvent.CRASH_LOOP_OVER,
    ProgramEvent.FATAL: ProgramEvent.STARTED_AGAIN,
    ProgramEvent.WANTS_NO_RESTART: None,
    ProgramEvent.STALLED: None,
}

_WELL = (WorkerState.STARTING, WorkerState.AVAILABLE, WorkerState.DRAINING)


class RegistryMetrics(Collector):
    def __init__(self, metrics: CollectorRegistry, roles: Iterable[str] = CALL_ROLES) -> None:
        """`roles`: what a call needs, shown before there is a worker of them."""
        self._roles = frozenset(roles)
        self._snapshot: Snapshot | None = None
        self._seen_s = 0.0
        self.forget()
        metrics.register(self)
        self._events = Counter("callbox_registry_events_total", "Lines of the audit log", ["kind"], registry=metrics)
        self._grants = Counter("callbox_registry_grants_total", "Calls that were given their slots", registry=metrics)
        self._losses = Counter(
            "callbox_registry_losses_total",
            "Leases that ended other than by their holder's word",
            ["what"],
            registry=metrics,
        )
        for what in LOSSES.values():
            self._losses.labels(what)

    def show(self, snapshot: Snapshot) -> None:
        """Export this until the next one, or until it is STALE_S old."""
        self._snapshot, self._seen_s = snapshot, time.monotonic()
        self._missing &= {worker.worker for worker in snapshot.workers}

    def forget(self) -> None:
        """What earlier events said: the log has begun anew."""
        self._last_loss_s = dict.fromkeys(LOSSES.values(), 0.0)
        self._missing: set[str] = set()  # workers that went without a word
        self._last_trouble_s: dict[tuple[str, str], float] = {}  # program and kind; 0: over

    def remember(self, event: Event) -> None:
        """What is true since this event; told of the same events again, it comes to the same."""
        if what := LOSSES.get(event.kind):
            self._last_loss_s[what] = written_ms(event.id) / 1000
        elif event.kind == "gone" and event.data.get("why") != GOODBYE:
            self._missing.add(event.data.get("worker", ""))
        elif event.kind in ("gone", "registered"):
            self._missing.discard(event.data.get("worker", ""))
        elif program := event.data.get("program"):
            for trouble, end in TROUBLES.items():
                if event.kind == trouble:
                    self._last_trouble_s[program, trouble] = written_ms(event.id) / 1000
                elif event.kind == end:
                    self._last_trouble_s[program, trouble] = 0.0

    def count(self, event: Event) -> None:
        """One more event; each once."""
        self._events.labels(event.kind).inc()
        if event.kind == "granted":
            self._grants.inc()
        elif what := LOSSES.get(event.kind):
            self._losses.labels(what).inc()

    def collect(self) -> Iterator[Metric]:
        snapshot = self._snapshot if time.monotonic() - self._seen_s < STALE_S else None
        yield _gauge("callbox_registry_up", "Whether the registry answers the monitor", snapshot is not None)
        if snapshot is not None:
            yield from _workers(snapshot.workers, self._roles)
            yield from _calls(snapshot)
            yield self._health_of(snapshot.workers)
            yield self._last_losses()
            yield self._last_troubles()

    def _health_of(self, workers: Iterable[WorkerRecord]) -> Metric:
        """A worker that said goodbye has none; one that is missing is looked for until the registry forgets it."""
        well = GaugeMetricFamily(
            "callbox_registry_worker_healthy", "1: it can be relied on, 0: it cannot", labels=["role", "worker"]
        )
        for worker in workers:
            if worker.state is not WorkerState.GONE or worker.worker in self._missing:
                well.add_metric([worker.role, worker.worker], float(worker.state in _WELL))
        return well

    def _last_losses(self) -> Metric:
        last = GaugeMetricFamily(
            "callbox_registry_last_loss_timestamp_seconds", "When a lease was last lost; 0: never", labels=["what"]
        )
        for what, at_s in self._last_loss_s.items():
            last.add_metric([what], at_s)
        return last

    def _last_troubles(self) -> Metric:
        last = GaugeMetricFamily(
            "callbox_program_trouble_timestamp_seconds",
            "When the listener last noted this of a program; 0: it is over",
            labels=["program", "kind"],
        )
        for (program, kind), at_s in self._last_trouble_s.items():
            last.add_metric([program, kind], at_s)
        return last


def written_ms(event_id: str) -> int:
    """When Redis wrote a line of the audit log, by its own clock: its id begins with that."""
    return int(event_id.partition("-")[0])


def _workers(workers: Iterable[WorkerRecord], roles: Iterable[str]) -> Iterator[Metric]:
    count = GaugeMetricFamily("callbox_registry_workers", "Workers by state", labels=["role", "state"])
    slots = GaugeMetricFamily("callbox_registry_slots", "Slots of workers that are not gone", labels=["role"])
    leases = GaugeMetricFamily("callbox_registry_leases", "Slots that are leased or reserved", labels=["role"])
    by_state = Tally((worker.role, worker.state) for worker in workers)
    for role in sorted({*roles, *(role for role, _ in by_state)}):
        present = [worker for worker in workers if worker.role == role and worker.state is not WorkerState.GONE]
        for state in WorkerState:
            count.add_metric([role, state.value.lower()], by_state[role, state])
        slots.add_metric([role], sum(worker.slots for worker in present))
        leases.add_metric([role], sum(len(worker.leases) for worker in present))
    yield from (count, slots, leases)


def _calls(snapshot: Snapshot) -> Iterator[Metric]:
    stages = Tally(call.state for call in snapshot.calls)
    calls = GaugeMetricFamily("callbox_registry_calls", "Calls by state", labels=["state"])
    for stage in (CallState.QUEUED, CallState.RESERVED, CallState.HELD):
        calls.add_metric([stage.value.lower()], stages[stage])
    yield calls
    yield _gauge("callbox_registry_queue_length", "Calls that wait for slots", len(snapshot.queue))
    oldest_ms = max((call.age_ms for call in snapshot.queue), default=0)
    yield _gauge("callbox_registry_queue_oldest_wait_seconds", "How long the longest of them waits", oldest_ms / 1000)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=float(value))
