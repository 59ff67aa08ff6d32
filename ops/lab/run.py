"""A run of the lab: its calls, what was measured of each turn, and the verdict."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ops.figures import Bound, Report, Row, Summary
from ops.lab import gates
from ops.lab.calls import RecordedTurn, dial_case
from ops.lab.cases import Case
from ops.lab.measures import Measures, measure
from ops.lab.signals import signal_of
from ops.private_box import PrivateBox


@dataclass(frozen=True, slots=True)
class Judged:
    recorded: RecordedTurn
    measures: Measures  # nothing found where the speech worker kept nothing

    @property
    def captured(self) -> bool:
        return self.measures.active_dbfs >= gates.limit_of("active_dbfs")

    @property
    def lacks(self) -> list[str]:
        """What the answer does not have that it must."""
        case, words = self.recorded.case, self.recorded.turn.answer.lower()
        wanted = case.has[self.recorded.number - 1] if case.has else ()
        return [] if not wanted or any(word in words for word in wanted) else list(wanted)


async def run(
    cases: Sequence[Case], *, llm_model: str, on_case: Callable[[int], None], on_end: Callable[[PrivateBox], None]
) -> list[Judged]:
    """Each case is a call to a box of the run's own, which `on_end` is shown before it is gone.

    Raises StepFailed, Unavailable or TimeoutError.
    """
    judged: list[Judged] = []
    with PrivateBox(slots=1, llm_model=llm_model) as box:
        box.write_persona()
        for case in cases:
            judged += [judge(recorded) for recorded in await dial_case(box.settings, case)]
            on_case(1)
        on_end(box)
    return judged


def judge(recorded: RecordedTurn) -> Judged:
    if recorded.said is None:
        return Judged(recorded, Measures.nothing_found())
    return Judged(recorded, measure(signal_of(recorded.said), signal_of(recorded.heard)))


def report(judged: Sequence[Judged], llm_model: str) -> Report:
    found = Report("How calls sound", facts={"llm": llm_model, "turns": len(judged)})
    found.tables["Turns"] = [_row(one) for one in judged]
    turns = [one.recorded.turn for one in judged]
    first_audio_ms = _known(turn.eot_to_first_audio_ms for turn in turns)
    publish_ms = _known(turn.tts_first_to_publish_ms for turn in turns)
    for name, samples in {
        "end of speech → first audio heard": first_audio_ms,
        "first audio made → sent": publish_ms,
    }.items():
        if samples:
            found.samples[name] = Summary.of(samples)
    found.bounds = [
        Bound(
            "answers found in the recording", _pct(one.captured for one in judged), gates.CAPTURED_PCT, "%", "at least"
        ),
        Bound(
            "answers as made by the speech worker",
            _pct(one.recorded.said is not None for one in judged),
            gates.COVERED_PCT,
            "%",
            "at least",
        ),
        _worst(judged, "longest gap", "max_gap_ms", "ms"),
        _worst(judged, "dropout", "dropout_pct", "%"),
        _worst(judged, "clipping", "clipping_pct", "%"),
        Bound(
            "mel distance, P95",
            _p95(_known(one.measures.mel_distance_db for one in judged)),
            gates.limit_of("mel_distance_db"),
            "dB",
        ),
        Bound("end of speech → first audio heard, P95", _p95(first_audio_ms), gates.EOT_TO_FIRST_AUDIO_P95_MS, "ms"),
        Bound("first audio made → sent, P95", _p95(publish_ms), gates.FIRST_TO_PUBLISH_P95_MS, "ms"),
        Bound("answers without the word that they must have", sum(bool(one.lacks) for one in judged), 0),
    ]
    return found


def _row(one: Judged) -> Row:
    turn, measures = one.recorded.turn, one.measures
    return {
        "turn": one.recorded.name,
        "gap, ms": measures.max_gap_ms,
        "dropout, %": measures.dropout_pct,
        "clipping, %": measures.clipping_pct,
        "mel, dB": measures.mel_distance_db,
        "drift, %": measures.drift_pct,
        "spikes": measures.spike_count,
        "first audio, ms": turn.eot_to_first_audio_ms,
        "made → sent, ms": turn.tts_first_to_publish_ms,
        "answer": turn.answer[:40],
    }


def _worst(judged: Sequence[Judged], name: str, measure_name: str, unit: str) -> Bound:
    values = np.array([getattr(one.measures, measure_name) for one in judged])
    return Bound(f"{name}, worst turn", float(np.max(values)), gates.limit_of(measure_name), unit)


def _known(values: Iterable[float | None]) -> list[float]:
    """Those that could be measured; that one could not fails the gate on what was found."""
    return [value for value in values if value is not None and math.isfinite(value)]


def _p95(values: list[float]) -> float:
    return Summary.of(values).p95_or_max if values else math.nan


def _pct(which: Iterable[bool]) -> float:
    return 100 * float(np.mean(list(which)))
