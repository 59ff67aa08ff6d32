"""What a recording, and a run, must not have: the one home of the lab's thresholds."""

from dataclasses import dataclass

from ops.lab.measures import DRIFTS_PCT, Measures


@dataclass(frozen=True, slots=True)
class Gate:
    """Of one measure, by its name in Measures."""

    measure: str
    limit: float
    at_least: bool = False

    def fires(self, measures: Measures) -> bool:
        """The measure is beyond its limit. What could not be measured fires nothing, and passes nothing either."""
        value = float(getattr(measures, self.measure))
        return value < self.limit if self.at_least else abs(value) > self.limit


GATES = (
    Gate("active_dbfs", -45.0, at_least=True),
    Gate("max_gap_ms", 60.0),
    Gate("dropout_pct", 1.0),
    Gate("clipping_pct", 0.1),
    Gate("mel_distance_db", 5.0),
    Gate("drift_pct", DRIFTS_PCT),
    Gate("hf_ratio_drop_db", 6.0),
    Gate("spike_count", 0.0),
)

CAPTURED_PCT = 100.0  # of the turns of a run: the answer is found in the recording, loud enough
COVERED_PCT = 100.0  # the speech worker kept what it made
EOT_TO_FIRST_AUDIO_P95_MS = 1500.0
FIRST_TO_PUBLISH_P95_MS = 120.0
YIELDS_WITHIN_MS = 2000.0


def gate_of(measure: str) -> Gate:
    return next(gate for gate in GATES if gate.measure == measure)


def limit_of(measure: str) -> float:
    return gate_of(measure).limit
