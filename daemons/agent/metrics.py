"""What the agent counts and times, for Prometheus."""

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from daemons import wire

NOTES = ("words", "understanding", "garbage", "refused", "failed", "dropped")
ANSWERED_BUCKETS_S = (0.3, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 10)


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.calls_ended = Counter("callbox_calls_ended_total", "Calls ended", ["reason"], registry=registry)
        for reason in get_args(wire.EndReason):
            self.calls_ended.labels(reason)
        self.answered_s = Histogram(
            "callbox_turn_response_seconds",
            "From the end of a caller's speech to the first frame of the answer",
            buckets=ANSWERED_BUCKETS_S,
            registry=registry,
        )
        self.speculations = Counter(
            "callbox_speculations_total",
            "Replies prepared before the caller's turn was over",
            ["outcome"],  # kept, thrown_away, failed
            registry=registry,
        )
        for outcome in ("kept", "thrown_away", "failed"):
            self.speculations.labels(outcome)
        self.notes = Counter(
            "callbox_notes_total",
            "What the model said of callers' turns besides answering them",
            ["outcome"],
            registry=registry,
        )
        for outcome in NOTES:
            self.notes.labels(outcome)
