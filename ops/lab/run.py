"""A run of the lab: its calls, what was measured of each turn, and the verdict."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from daemons.audio import wav_bytes
from ops.figures import Bound, Report, Row, Summary
from ops.lab import gates
from ops.lab.calls import Dialled, Interruption, RecordedTurn, dial_case
from ops.lab.callers import Voice
from ops.lab.cases import Case
from ops.lab.measures import Measures, measure
from ops.lab.recorder import path_ms
from ops.lab.signals import signal_of
from ops.lab.trends import Trends, trends
from ops.private_box import PrivateBox


@dataclass(frozen=True, slots=True)
class Judged:
    recorded: RecordedTurn
    measures: Measures  # nothing found where the speech worker kept nothing
    trends: Trends

    @property
    def captured(self) -> bool:
        return self.measures.active_dbfs >= gates.limit_of("active_dbfs")

    @property
    def lacks(self) -> tuple[str, ...]:
        """What the answer does not have that it must."""
        wanted, words = self.recorded.has, self.recorded.turn.answer.lower()
        return () if not wanted or any(word in words for word in wanted) else wanted


@dataclass(frozen=True, slots=True)
class Run:
    """`path_ms`: how much later the recorder hears what LiveKit was given, by chirps before the first call."""

    dialled: list[Dialled]
    turns: list[Judged]
    path_ms: Sequence[float]

    @property
    def failures(self) -> list[str]:
        return [f"{one.case.name}: {why}" for one in self.dialled for why in one.failures]

    @property
    def interruptions(self) -> list[Interruption]:
        found = (one.recorded.interruption for one in self.turns)
        return [interruption for interruption in found if interruption is not None]


async def run(cases: Sequence[Case], times: int, *, llm_model: str, on_case: Callable[[int], None]) -> Run:
    """All cases, so many times, in calls to a box of the run's own. Raises StepFailed, or Unavailable when nothing can be said."""
    dialled: list[Dialled] = []
    with PrivateBox(slots=max(case.calls for case in cases), llm_model=llm_model) as box:
        heard_after_ms = await path_ms(box.settings)
        for number in range(1, times + 1):
            for case in cases:
                box.write_persona(**({} if case.max_sentences is None else {"max_sentences": case.max_sentences}))
                dialled.append(await dial_case(box.settings, await Voice.of(box.settings, case), f"-r{number}" if times > 1 else ""))
                on_case(1)
    return judge(dialled, heard_after_ms)


def judge(dialled: list[Dialled], heard_after_ms: Sequence[float] = ()) -> Run:
    turns = [recorded for one in dialled for call in one.calls for recorded in call.turns]
    return Run(dialled, [Judged(recorded, _measured(recorded), _trends(recorded)) for recorded in turns], heard_after_ms)


def _measured(recorded: RecordedTurn) -> Measures:
    if recorded.said is None:
        return Measures.nothing_found()
    return measure(signal_of(recorded.said), signal_of(recorded.heard))


def _trends(recorded: RecordedTurn) -> Trends:
    return trends(recorded.heard, recorded.turn.answer, recorded.words)


def report(run: Run, llm_model: str) -> Report:
    calls = [call for one in run.dialled for call in one.calls]
    turns = [one.recorded.turn for one in run.turns]
    interruptions = run.interruptions
    yields = [one for one in interruptions if one.wanted]
    first_audio_ms = _known(turn.eot_to_first_audio_ms for turn in turns)
    publish_ms = _known(turn.tts_first_to_publish_ms for turn in turns)
    silence_ms = _known(one.silence_ms for one in yields)
    found = Report("How calls sound", facts={"llm": llm_model, "calls": len(calls), "turns": len(turns)})
    found.facts |= {f"failure {number}": why for number, why in enumerate(run.failures, 1)}
    found.tables["Turns"] = [_row(one) for one in run.turns]
    found.tables["What was measured, beside what is allowed"] = [
        row for gate in gates.GATES if (row := _spread(gate, run.turns)) is not None
    ]
    for name, samples in {
        "end of speech → first audio heard": first_audio_ms,
        "endpointing": _known(turn.endpointing_ms for turn in turns),
        "transcription": _known(turn.stt_ms for turn in turns),
        "model's first token": _known(turn.llm_ttft_ms for turn in turns),
        "first audio made": _known(turn.tts_ttfa_ms for turn in turns),
        "first audio made → sent": publish_ms,
        "interruption → silence heard": silence_ms,
        "cancel → last frame sent": _known(one.cancel_ms for one in yields),
        "given to LiveKit → recorded": list(run.path_ms),
    }.items():
        if samples:
            found.samples[name] = Summary.of(samples)
    found.counts["calls tried again"] = len(run.failures)
    found.counts["answers held for a moment"] = sum(one.held for one in interruptions if not one.wanted)
    if received := sum(call.reception.samples for call in calls):
        found.counts["samples that WebRTC made up, %"] = 100 * sum(call.reception.concealed for call in calls) / received
    found.bounds = [
        Bound("cases without a call", sum(not one.calls for one in run.dialled), 0),
        Bound("answers found in the recording", _pct(one.captured for one in run.turns), gates.CAPTURED_PCT, "%", "at least"),
        Bound(
            "answers as made by the speech worker",
            _pct(one.recorded.said is not None for one in run.turns),
            gates.COVERED_PCT,
            "%",
            "at least",
        ),
        _worst(run, "longest gap", "max_gap_ms", "ms"),
        _worst(run, "dropout", "dropout_pct", "%"),
        _worst(run, "clipping", "clipping_pct", "%"),
        Bound(
            "mel distance, P95",
            _p95(_known(one.measures.mel_distance_db for one in run.turns)),
            gates.limit_of("mel_distance_db"),
            "dB",
        ),
        Bound("end of speech → first audio heard, P95", _p95(first_audio_ms), gates.EOT_TO_FIRST_AUDIO_P95_MS, "ms"),
        Bound("first audio made → sent, P95", _p95(publish_ms), gates.FIRST_TO_PUBLISH_P95_MS, "ms"),
        Bound("answers without the word that they must have", sum(bool(one.lacks) for one in run.turns), 0),
        Bound("callers cut off in mid-sentence", sum(turn.cut_off for turn in turns), 0),
        Bound("times spoken to in their silence", sum(call.spoken_unasked for call in calls), 0),
    ]
    if interruptions:
        found.bounds += [
            Bound("sounds that came when the answer was over", sum(not one.in_time for one in interruptions), 0),
            Bound(
                "answers ended by a cough or an okay", sum(one.ended for one in interruptions if not one.wanted), 0
            ),
        ]
    if yields:
        found.bounds += [
            Bound("interruptions that did not end the answer", sum(not one.ended for one in yields), 0),
            Bound("interruption → silence heard, longest", max(silence_ms, default=math.nan), gates.YIELDS_WITHIN_MS, "ms"),
        ]
    return found


def keep(judged: Sequence[Judged], folder: Path) -> None:
    """What the verdict rests on: of each turn both recordings, its events, and what was measured."""
    for one in judged:
        place = folder / one.recorded.name
        place.mkdir(parents=True, exist_ok=True)
        (place / "heard.wav").write_bytes(wav_bytes(one.recorded.heard))
        if one.recorded.said is not None:
            (place / "said.wav").write_bytes(wav_bytes(one.recorded.said))
        measures = {name: value if math.isfinite(value) else None for name, value in asdict(one.measures).items()}
        facts = {"measures": measures, "turn": one.recorded.turn.model_dump()}
        (place / "turn.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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


def _worst(run: Run, name: str, measure_name: str, unit: str) -> Bound:
    values = np.array([getattr(one.measures, measure_name) for one in run.turns])
    worst = float(np.max(values)) if len(values) else math.nan
    return Bound(f"{name}, worst turn", worst, gates.limit_of(measure_name), unit)


def _known(values: Iterable[float | None]) -> list[float]:
    """Those that could be measured; that one could not fails the gate on what was found."""
    return [value for value in values if value is not None and math.isfinite(value)]


def _p95(values: list[float]) -> float:
    return Summary.of(values).p95_or_max if values else math.nan


def _pct(which: Iterable[bool]) -> float:
    found = list(which)
    return 100 * float(np.mean(found)) if found else math.nan
