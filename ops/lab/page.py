"""The report of a run for a reader: report.html, one file that needs nothing else, and report.md without pictures.

Both are made of nothing but the run's folder, and of the reports of the runs before it.
"""

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape
from markupsafe import Markup, escape

from daemons.audio import TTS_RATE_HZ, Pcm, to_float
from ops.figures import figure
from ops.lab import advice, evidence, gates, pictures
from ops.lab.evidence import KeptTurn, Run
from ops.lab.measures import lay_beside
from ops.lab.signals import signal_of
from ops.lab.stages import STAGES, Span, spans

PAGE, TEXT = "report.html", "report.md"
MOST_RUNS = evidence.KEPT_RUNS  # of a trend
OPUS_COMPRESSION = 0.85  # of 0 to 1: about 40 kbit/s
_MEASURES = {
    "active_dbfs": ("level of the voice", " dBFS"),
    "max_gap_ms": ("longest gap", " ms"),
    "dropout_pct": ("dropout", " %"),
    "clipping_pct": ("clipping", " %"),
    "mel_distance_db": ("mel distance", " dB"),
    "drift_pct": ("speed off by", " %"),
    "hf_ratio_drop_db": ("high tones lost", " dB"),
    "spike_count": ("clicks and booms", ""),
}


@dataclass(frozen=True, slots=True)
class Gate:
    """A line of the table."""

    name: str
    measured: str
    limit: str
    n: int
    held: bool


@dataclass(frozen=True, slots=True)
class Trend:
    name: str
    measured: str
    picture: str


@dataclass(frozen=True, slots=True)
class TurnView:
    facts: evidence.TurnFacts
    stages: list[Span]
    measures: list[tuple[str, str, str, bool]]  # gate, measured, limit, whether it is missed
    missed: list[tuple[str, bool]]  # gate, whether the run's verdict hangs on it
    found: bool
    in_step: bool
    waves: str
    spectra: str
    said: str  # as data: URIs
    heard: str


def lay(folder: Path, runs_dir: Path) -> Path:
    """Write both files into the folder of a run; returns the page. Raises BadRequest where that is none."""
    run = evidence.read(folder)
    before = evidence.before(run, runs_dir)
    _write(folder / TEXT, markdown(run))
    _write(folder / PAGE, html(run, before))
    return folder / PAGE


def html(run: Run, before: Sequence[dict[str, Any]]) -> str:
    """`before` are the reports of earlier runs of the same turns, the oldest first."""
    waits = [(turn.facts.name, spans(turn.facts.turn)) for turn in run.turns]
    return _template("report.html.jinja").render(
        _facts(run),
        turns=[_view(turn, run) for turn in run.turns],
        waits=pictures.waterfall(waits, gates.EOT_TO_FIRST_AUDIO_P95_MS),
        limit_ms=gates.EOT_TO_FIRST_AUDIO_P95_MS,
        stages=STAGES,
        trends=_trends(run, before),
    )


def markdown(run: Run) -> str:
    return _template("report.md.jinja").render(
        _facts(run),
        turns=[(turn.facts, spans(turn.facts.turn), _measures(turn)) for turn in run.turns],
    )


def _facts(run: Run) -> dict[str, Any]:
    table = [_gate(bound, run) for bound in run.report["bounds"]]
    missed = [gate for gate in table if not gate.held]
    names = ", ".join(advice.gate_of(gate.name) for gate in missed)
    failed = f"{len(missed)} gate{'s' if len(missed) > 1 else ''} missed: {names}"
    return {
        "report": run.report,
        "versions": run.versions,
        "verdict": failed if missed else "This build sounds right",
        "gates": table,
        "missed": missed,
        "to_do": advice.to_do(run.report["bounds"]),
    }


def _gate(bound: dict[str, Any], run: Run) -> Gate:
    sign, unit = "≤" if bound["kind"] == "at most" else "≥", bound["unit"] and f" {bound['unit']}"
    measured = "not measurable" if bound["measured"] is None else f"{figure(bound['measured'])}{unit}"
    return Gate(
        name=bound["name"],
        measured=measured,
        limit=f"{sign} {figure(bound['limit'])}{unit}",
        n=_count(bound["name"], run),
        held=bound["held"],
    )


def _count(bound_name: str, run: Run) -> int:
    """Of how many turns a bound tells: of those without a fault that was put into them."""
    if (summary := run.report["samples"].get(advice.gate_of(bound_name))) is not None:
        return int(summary["n"])
    known = advice.of(bound_name)
    sound = [turn.facts for turn in run.turns if turn.facts.fault is None]
    if known is None or known.measure is None or known.measure == "active_dbfs":  # of that the share of turns is told
        return len(sound)
    return sum(facts.measures[known.measure] is not None for facts in sound)


def _view(kept: KeptTurn, run: Run) -> TurnView:
    judged = {advice.gate_of(bound["name"]) for bound in run.report["bounds"]}
    said, heard = None if kept.said is None else signal_of(kept.said), signal_of(kept.heard)
    beside = None if said is None else lay_beside(said, heard)
    return TurnView(
        facts=kept.facts,
        stages=spans(kept.facts.turn),
        measures=_measures(kept),
        missed=[(name, name in judged) for name in kept.facts.missed],
        found=beside is not None,
        in_step=beside is not None and beside.in_step,
        waves=pictures.waveforms(said, heard, beside),
        spectra=pictures.spectrograms(said, heard, beside),
        said="" if kept.said is None else _sound(kept.said),
        heard=_sound(kept.heard),
    )


def _measures(kept: KeptTurn) -> list[tuple[str, str, str, bool]]:
    lines = []
    for gate in gates.GATES:
        value, name = kept.facts.measures[gate.measure], advice.of_measure(gate.measure)
        limit = f"{'≥' if gate.at_least else '≤'} {figure(gate.limit)}"
        title, unit = _MEASURES[gate.measure]
        shown = "not measurable" if value is None else f"{figure(value)}{unit}"
        lines.append((title, shown, f"{limit}{unit}", name in kept.facts.missed))
    return lines


def _trends(run: Run, before: Sequence[dict[str, Any]]) -> list[Trend]:
    """Of each bound that an earlier run has, too."""
    trends = []
    for bound in run.report["bounds"] if before else ():
        past = [{one["name"]: one["measured"] for one in report["bounds"]} for report in before[1 - MOST_RUNS :]]
        values = [one.get(bound["name"]) for one in past] + [bound["measured"]]
        if any(value is not None for value in values):
            picture = pictures.trend(values, bound["limit"], at_most=bound["kind"] == "at most")
            trends.append(Trend(bound["name"], _gate(bound, run).measured, picture))
    return trends


def _sound(pcm: Pcm) -> str:
    """As a data: URI of Opus."""
    out = io.BytesIO()
    samples = to_float(pcm.resampled(TTS_RATE_HZ).samples)
    soundfile.write(out, samples, TTS_RATE_HZ, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION)
    return f"data:audio/ogg;base64,{base64.b64encode(out.getvalue()).decode()}"


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=select_autoescape(["html.jinja"]),
    )
    environment.filters["figure"] = lambda value: figure(math.nan if value is None else value)
    environment.filters["wait"] = lambda ms: "nothing heard" if ms is None else f"{figure(ms)} ms"
    environment.filters["moment"] = lambda when: when.replace("T", " ").replace("Z", " UTC")
    environment.filters["plain"] = _plain
    environment.filters["code"] = _code
    return environment.get_template(name)


def _plain(text: object) -> str:
    """In Markdown: one line that is no markup, whatever somebody said."""
    return re.sub(r"([\\`*_{}\[\]<>()#+\-!|~&])", r"\\\1", " ".join(str(text).split()))


def _code(text: str) -> Markup:
    """In HTML: what stands between backticks is code."""
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - it is escaped


def _write(path: Path, text: str) -> None:
    """Nobody ever sees half of it."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
