"""The report of `callbox bench tts` for a reader: one HTML file that needs nothing else, its plots drawn as SVG."""

import base64
import html
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from daemons.audio import TTS_RATE_HZ, Pcm, Samples, wav_bytes
from ops.bench import waves
from ops.bench.answers import CASES
from ops.bench.tts import FAST, FULL, Taken

WIDTH, HEIGHT = 900, 110
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .15rem .7rem; text-align: right }
td:first-child, th:first-child { text-align: left; padding-left: 0 } tr + tr { border-top: 1px solid #e4e4e4 }
.held { color: #17702c } .missed { color: #b3261e; font-weight: 600 } svg { width: 100%; height: auto }
figure { margin: 1rem 0 } figcaption { color: #555 } audio { height: 2rem; vertical-align: middle }
"""
_COLOURS = {FAST: "#2563c9", FULL: "#c96a25"}


def page(data: dict[str, Any], taken: Taken) -> str:
    """`data` is the report's, as in summary.json."""
    facts = ", ".join(f"{name} {value}" for name, value in data["facts"].items())
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{_text(data['title'])}</title>",
        f"<style>{_STYLE}</style><h1>{_text(data['title'])}</h1>",
        f"<p>{_text(data['machine'])}<br>{_text(facts)}</p>",
        "<p class=held>Every gate held.</p>" if data["ok"] else "<p class=missed>A gate was missed.</p>",
        "<h2>Gates</h2>",
        _table(
            ("gate", "measured", "limit", ""),
            (
                (bound["name"], _figure(bound["measured"], bound["unit"]), f"{bound['kind']} {bound['limit']:g}", held)
                for bound in data["bounds"]
                for held in ["held" if bound["held"] else "missed"]
            ),
        ),
        "<h2>First audio and real-time factor</h2>",
        _figure_of(
            _strips({key: [heard.first_ms for heard in takes] for key, takes in taken.heard.items()}, "ms"),
            "first audio (fast) or the whole file (full), each run",
        ),
        _figure_of(
            _strips({key: [heard.rtf or 0.0 for heard in takes] for key, takes in taken.heard.items()}, ""),
            "work by audio, each run",
        ),
        _table(
            (data["unit"], "n", "median", "P95", "max"),
            (
                (name, str(one["n"]), *(_figure(one.get(key)) for key in ("median", "p95", "max")))
                for name, one in data["samples"].items()
            ),
        ),
        "<h2>What was said</h2><p>In pieces (blue), with its seams and its pitch; and in whole sentences (orange).</p>",
        *(_case(case, taken) for case in CASES),
        "<h2>Seams</h2><p>Against the same sentence said whole, where the pieces of one meet.</p>",
        _table(
            ("between", "click", "pause ms", "level dB", "fall", "jump", "SNR dB"),
            (
                (
                    f"{seam.before} | {seam.after}",
                    *map(_figure, (seam.click, seam.pause_ms, seam.level_db, seam.fall, seam.jump, seam.snr_db)),
                )
                for seam in taken.seams
            ),
        ),
        "<h2>Memory under stress</h2>",
        _figure_of(
            _line([size / 2**20 for size in taken.memory_bytes], "MB"), "resident memory of the worker, each round"
        ),
        _table(("figure", ""), ((name, _figure(value)) for name, value in data["counts"].items())),
        *(f"<p class=missed>{_text(error)}</p>" for error in taken.errors),
    ]
    return "\n".join(parts) + "\n</html>\n"


def _case(case: str, taken: Taken) -> str:
    live = taken.live[case]
    whole = taken.first(case, FULL)
    longest = max(len(live.samples), len(whole))
    marks = [segment.from_sample for segment in live.segments[1:]]
    pieces = " | ".join(segment.text for segment in live.segments)
    return (
        f"<h3>{_text(case)}</h3><p>{_text(pieces)}</p>"
        + _figure_of(_wave(live.samples, longest, _COLOURS[FAST], marks), _player(live.samples))
        + _figure_of(_wave(whole, longest, _COLOURS[FULL], ()), _player(whole))
    )


def _wave(samples: Samples, longest: int, colour: str, marks: Sequence[int]) -> str:
    """The envelope, the pitch from 80 to 400 Hz over it, and a line at each of `marks`."""
    column = max(1, longest // WIDTH)
    peaks = [float(np.abs(samples[at : at + column].astype(int)).max()) for at in range(0, len(samples), column)]
    middle = HEIGHT / 2
    bars = "".join(f"M{x} {middle - peak / 700:.1f}V{middle + peak / 700:.1f}" for x, peak in enumerate(peaks))
    pitch = waves.pitch_hz(samples)
    dots = "".join(
        f"M{index * waves.PITCH_STEP / column:.1f} {HEIGHT - (hz - 80) / 320 * HEIGHT:.1f}h1"
        for index, hz in enumerate(pitch)
        if not math.isnan(hz)
    )
    seams = "".join(f"M{at / column:.1f} 0V{HEIGHT}" for at in marks)
    drawn = f"<path d='{bars}' stroke='{colour}' opacity='.45'/><path d='{dots}' stroke='#222' stroke-width='2'/>"
    return _svg(f"{drawn}<path d='{seams}' stroke='#b3261e' stroke-dasharray='3'/>")


def _strips(values: dict[tuple[str, str], list[float]], unit: str) -> str:
    """A row of dots for each, on one scale."""
    most = max((value for row in values.values() for value in row), default=0) or 1.0
    rows = []
    for index, ((case, mode), row) in enumerate(values.items()):
        y = 14 + index * 18
        rows.append(f"<text x='0' y='{y + 4}'>{_text(case)}, {mode}</text>")
        dots = (f"<circle cx='{150 + value / most * 680:.1f}' cy='{y}' r='3'/>" for value in row)
        rows.append(f"<g fill='{_COLOURS[mode]}' opacity='.5'>{''.join(dots)}</g>")
    height = 24 + len(values) * 18
    rows.append(f"<text x='150' y='{height}'>0</text><text x='830' y='{height}'>{most:.3g} {unit}</text>")
    return _svg("".join(rows), height + 6)


def _line(values: Sequence[float], unit: str) -> str:
    if not values:
        return _svg("")
    low, high = min(values), max(values)
    span = max(high - low, 1.0)
    points = (
        f"{60 + index / max(1, len(values) - 1) * 820:.1f},{100 - (value - low) / span * 90:.1f}"
        for index, value in enumerate(values)
    )
    labels = f"<text x='0' y='14'>{high:.0f} {unit}</text><text x='0' y='{HEIGHT - 8}'>{low:.0f} {unit}</text>"
    return _svg(f"{labels}<polyline points='{' '.join(points)}' fill='none' stroke='{_COLOURS[FAST]}'/>")


def _svg(content: str, height: int = HEIGHT) -> str:
    return f"<svg viewBox='0 0 {WIDTH} {height}' font-size='12' fill='#222'>{content}</svg>"


def _figure_of(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _player(samples: Samples) -> str:
    wav = base64.b64encode(wav_bytes(Pcm(samples, TTS_RATE_HZ))).decode()
    return f"<audio controls src='data:audio/wav;base64,{wav}'></audio> {len(samples) / TTS_RATE_HZ:.2f} s"


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{_text(title)}" for title in titles)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) for row in rows)
    return f"<table><tr>{head}{body}</table>"


def _cell(cell: str) -> str:
    return f"<td class={cell}>{cell}" if cell in ("held", "missed") else f"<td>{_text(cell)}"


def _figure(value: float | None, unit: str = "") -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.3g} {unit}".strip()


def _text(said: str) -> str:
    return html.escape(said)
