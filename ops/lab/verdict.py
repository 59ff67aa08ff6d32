"""What a run amounts to: its figures, and which gates were missed."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ops.caller import Turn
from ops.figures import Bound, Report, Row, Summary
from ops.lab import gates
from ops.lab.calls import Call
from ops.lab.mutate import fault_named
from ops.lab.run import Judged, Run


def report(run: Run, llm_model: str) -> Report:
    sound = [one for one in run.turns if one.recorded.case.fault is None]
    calls = [call for one in run.dialled for call in one.calls]
    facts: dict[str, str | int | float] = {"llm": llm_model, "calls": len(calls), "turns": len(run.turns)}
    facts |= {f"failure {number}": why for number, why in enumerate(run.failures, 1)}
    found = Report("How calls sound", facts=facts)
    found.tables["Turns"] = [_row(one) for one in run.turns]
    found.counts["calls tried again"] = len(run.failures)
    if received := sum(call.reception.samples for call in calls):
        concealed = sum(call.reception.concealed for call in calls)
        found.counts["samples that WebRTC made up, %"] = 100 * concealed / received
    found.samples |= _summaries({"given to LiveKit → recorded": list(run.path_ms)})
    found.bounds = [Bound("cases without a call", sum(not one.calls for one in run.dialled), 0)]
    if sound:
        _judge_sound(found, sound)
        _judge_waits(found, [one.recorded.turn for one in sound])
        _judge_manners(found, sound, calls)
    found.bounds += _found(run.turns)
    return found


def _judge_sound(found: Report, turns: Sequence[Judged]) -> None:
    """Of calls into which no fault was put."""
    found.tables["What was measured, beside what is allowed"] = [
        row for gate in gates.GATES if (row := _spread(gate, turns)) is not None
    ]
    captured, covered = _pct(one.captured for one in turns), _pct(one.recorded.said is not None for one in turns)
    found.bounds += [
        Bound("answers found in the recording", captured, gates.CAPTURED_PCT, "%", "at least"),
        Bound("answers as made by the speech worker", covered, gates.COVERED_PCT, "%", "at least"),
        _worst(turns, "longest gap", "max_gap_ms", "ms"),
        _worst(turns, "dropout", "dropout_pct", "%"),
        _worst(turns, "clipping", "clipping_pct", "%"),
        Bound(
            "mel distance, P95",
            _p95(_known(one.measures.mel_distance_db for one in turns)),
            gates.limit_of("mel_distance_db"),
            "dB",
        ),
        Bound("answers without the word that they must have", sum(bool(one.lacks) for one in turns), 0),
    ]


def _judge_waits(found: Report, turns: Sequence[Turn]) -> None:
    first_audio_ms = _known(turn.eot_to_first_audio_ms for turn in turns)
    publish_ms = _known(turn.tts_first_to_publish_ms for turn in turns)
    found.samples |= _summaries(
        {
            "end of speech → first audio heard": first_audio_ms,
            "endpointing": _known(turn.endpointing_ms for turn in turns),
            "transcription": _known(turn.stt_ms for turn in turns),
            "model's first token": _known(turn.llm_ttft_ms for turn in turns),
            "first audio made": _known(turn.tts_ttfa_ms for turn in turns),
            "first audio made → sent": publish_ms,
        }
    )
    found.bounds += [
        Bound("end of speech → first audio heard, P95", _p95(first_audio_ms), gates.EOT_TO_FIRST_AUDIO_P95_MS, "ms"),
        Bound("first audio made → sent, P95", _p95(publish_ms), gates.FIRST_TO_PUBLISH_P95_MS, "ms"),
    ]


def _judge_manners(found: Report, turns: Sequence[Judged], calls: Sequence[Call]) -> None:
    found.bounds += [
        Bound("callers cut off in mid-sentence", sum(one.recorded.turn.cut_off for one in turns), 0),
        Bound("times spoken to in their silence", sum(call.spoken_unasked for call in calls), 0),
    ]
    interruptions = [one.recorded.interruption for one in turns if one.recorded.interruption is not None]
    meant = [one for one in interruptions if one.wanted]
    others = [one for one in interruptions if not one.wanted]
    if interruptions:
        late = sum(not one.in_time for one in interruptions)
        found.bounds.append(Bound("sounds that came when the answer was over", late, 0))
    if others:
        found.counts["answers held for a moment by a cough or an okay"] = sum(one.held for one in others)
        found.bounds.append(Bound("answers ended by a cough or an okay", sum(one.ended for one in others), 0))
    if meant:
        silence_ms = _known(one.silence_ms for one in meant)
        found.samples |= _summaries(
            {
                "interruption → silence heard": silence_ms,
                "cancel → last frame sent": _known(one.cancel_ms for one in meant),
            }
        )
        longest_ms = max(silence_ms, default=math.nan)
        found.bounds += [
            Bound("interruptions that did not end the answer", sum(not one.ended for one in meant), 0),
            Bound("interruption → silence heard, longest", longest_ms, gates.YIELDS_WITHIN_MS, "ms"),
        ]


def _found(turns: Sequence[Judged]) -> list[Bound]:
    """Each fault that was put into a call is found by the measure that is meant for it."""
    spoilt = [(one, one.recorded.case.fault) for one in turns]
    return [
        Bound(f"{not_found(fault)}, {one.recorded.name}", int(not is_found(one)), 0)
        for one, fault in spoilt
        if fault is not None
    ]


def is_found(one: Judged) -> bool:
    """Whether the measure that is meant for the fault in this call saw it."""
    fault = one.recorded.case.fault
    return fault is not None and gates.gate_of(fault_named(fault).found_by).fires(one.measures)


def not_found(fault: str) -> str:
    return f"{fault} not found by {fault_named(fault).found_by}"


def _summaries(samples: dict[str, list[float]]) -> dict[str, Summary]:
    return {name: Summary.of(values) for name, values in samples.items() if values}


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
        "PLCMOS": one.trends.plcmos,
        "words wrong, %": one.trends.wrong_words_pct,
        "first audio, ms": turn.eot_to_first_audio_ms,
        "made → sent, ms": turn.tts_first_to_publish_ms,
        "answer": turn.answer[:40],
    }


def _spread(gate: gates.Gate, turns: Sequence[Judged]) -> Row | None:
    values = _known(float(getattr(one.measures, gate.measure)) for one in turns)
    if not values:
        return None
    return {
        "measure": gate.measure,
        "n": len(values),
        "least": min(values),
        "median": float(np.median(values)),
        "most": max(values),
        "limit": f"{'≥' if gate.at_least else '≤'} {gate.limit:g}",
        "fired": sum(gate.fires(one.measures) for one in turns),
    }


def _worst(turns: Sequence[Judged], name: str, measure_name: str, unit: str) -> Bound:
    values = np.array([getattr(one.measures, measure_name) for one in turns])
    return Bound(f"{name}, worst turn", float(np.max(values)), gates.limit_of(measure_name), unit)


def _known(values: Iterable[float | None]) -> list[float]:
    """Those that could be measured; that one could not fails the gate on what was found."""
    return [value for value in values if value is not None and math.isfinite(value)]


def _p95(values: list[float]) -> float:
    return Summary.of(values).p95_or_max if values else math.nan


def _pct(which: Iterable[bool]) -> float:
    return 100 * float(np.mean(list(which)))
