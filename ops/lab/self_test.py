"""Does the lab find what is there, and nothing else? Every fault in three strengths, on good recordings."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import soundfile

from ops.figures import Bound, Report, Row
from ops.lab.gates import GATES
from ops.lab.measures import measure
from ops.lab.mutate import FAULTS, Fault
from ops.lab.signals import RATE_HZ, Signal

LATER_S = 0.37
SOFTER_DB = -3.0
NOISE_DBFS = -80.0
CLEAN = "nothing"


@dataclass
class Matrix:
    """How often each gate fired: by fault (or CLEAN), strength and measure."""

    recordings: int
    fired: dict[tuple[str, float], Counter[str]] = field(default_factory=dict)


def as_heard(said: Signal, random: np.random.Generator) -> Signal:
    """A recording with nothing wrong: later, softer, through Opus, in a quiet room."""
    coded = io.BytesIO()
    soundfile.write(coded, said, RATE_HZ, format="OGG", subtype="OPUS")
    decoded, _ = soundfile.read(io.BytesIO(coded.getvalue()))
    late = np.concatenate([np.zeros(round(LATER_S * RATE_HZ)), decoded, np.zeros(RATE_HZ // 2)])
    return late * 10 ** (SOFTER_DB / 20) + random.normal(0, 10 ** (NOISE_DBFS / 20), len(late))


def run(recordings: Sequence[Signal], on_case: Callable[[int], None]) -> Matrix:
    """`recordings` of speech, [n] at RATE_HZ; `on_case` is called `cases` times. The same in each run."""
    matrix = Matrix(len(recordings))
    for number, said in enumerate(recordings):
        random = np.random.default_rng(number)
        heard = as_heard(said, random)
        _count(matrix, CLEAN, 0.0, said, heard)
        on_case(1)
        for fault in FAULTS:
            for strength in fault.strengths:
                _count(matrix, fault.name, strength, said, fault.apply(heard, strength, random))
                on_case(1)
    return matrix


def cases(recordings: int) -> int:
    return recordings * (1 + sum(len(fault.strengths) for fault in FAULTS))


def report(matrix: Matrix) -> Report:
    found = Report("The lab's detectors, on good recordings and on spoilt ones", unit="")
    found.facts["recordings"] = matrix.recordings
    found.tables["Recordings on which each gate fired; * is meant to"] = [
        _row(matrix, CLEAN, 0.0, None),
        *(_row(matrix, fault.name, strength, fault) for fault in FAULTS for strength in fault.strengths),
    ]
    found.tables["What a fault cannot but do besides"] = [
        {"fault": fault.name, "also fires": measure, "since": why}
        for fault in FAULTS
        for measure, why in fault.also.items()
    ]
    found.bounds.append(Bound("gates fired on good recordings", sum(matrix.fired[CLEAN, 0.0].values()), 0))
    for fault in FAULTS:
        fired = [matrix.fired[fault.name, strength] for strength in fault.strengths]
        missed = sum(matrix.recordings - counts[fault.found_by] for counts in fired)
        wrong = sum(n for counts in fired for name, n in counts.items() if name not in {fault.found_by, *fault.also})
        found.bounds += [
            Bound(f"{fault.name}: not found by {fault.found_by}", missed, 0),
            Bound(f"{fault.name}: taken for something else", wrong, 0),
        ]
    return found


def _count(matrix: Matrix, name: str, strength: float, said: Signal, heard: Signal) -> None:
    measures = measure(said, heard)
    matrix.fired[name, strength] = matrix.fired.get((name, strength), Counter()) + Counter(
        gate.measure for gate in GATES if gate.fires(measures)
    )


def _row(matrix: Matrix, name: str, strength: float, fault: Fault | None) -> Row:
    fired = matrix.fired[name, strength]
    row: Row = {"fault": name if fault is None else f"{name}, {strength:g} {fault.unit}"}
    for gate in GATES:
        count = str(fired[gate.measure]) if fired[gate.measure] else ""
        row[gate.measure] = f"{count}*" if fault is not None and gate.measure == fault.found_by else count
    return row
