"""The report's pictures, as SVG to stand in an HTML page, whose colours (`--ink`, `--said` and so on) they take."""

import io
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ops.lab.measures import Beside, stretches
from ops.lab.signals import FRAME, FRAME_MS, Positions, Signal, cut, frame_starts, mel_bands_hz, mel_db
from ops.lab.stages import ON_ITS_WAY, STAGES, Span

WIDTH_IN = 7.2
WAVE_IN, SPECTRUM_IN, AXIS_IN, LABEL_IN = 0.62, 1.25, 0.3, 0.62
BETWEEN_IN = 0.22
LANE_IN, BETWEEN_TURNS_IN = 0.05, 0.1
TREND_IN = (2.3, 0.55)
COLUMNS, SPECTRUM_COLUMNS = 700, 360
SHOWN_DB = 60.0  # below the loudest band
SHADES = 24
TICKS_HZ = (250, 1000, 4000)
LEAST_AMPLITUDE = 0.05

_COLOURS = ("ink", "soft", "line", "said", "heard", "bad", "warn", *(f"stage-{n}" for n in range(len(STAGES))))
_INK, _SOFT, _LINE, _SAID, _HEARD, _BAD, _WARN, *_STAGE = (f"#0101{n:02x}" for n in range(len(_COLOURS)))
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "callbox",  # else ids are drawn by chance, and no page is the same twice
    "font.size": 8,
    "text.parse_math": False,
    "text.color": _SOFT,
    "axes.labelcolor": _SOFT,
    "axes.edgecolor": _LINE,
    "axes.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
}


def waveforms(said: Signal | None, heard: Signal, beside: Beside | None) -> str:
    """One above the other, each [n] at RATE_HZ; on one time line where `beside` knows it, with what it found marked."""
    tracks: list[tuple[str, str, Signal, Positions]] = []
    if said is not None:
        tracks.append(("made", _SAID, said, frame_starts(said)))
    tracks.append(("heard", _HEARD, heard, frame_starts(heard) if beside is None else beside.there))
    envelopes = [_envelope(signal, starts) for _, _, signal, starts in tracks]
    loudest = max([LEAST_AMPLITUDE, *(float(np.max(np.abs(one), initial=0.0)) for one in envelopes)])
    longest_s = max(len(starts) for *_, starts in tracks) * FRAME_MS / 1000
    with rc_context(_STYLE):
        figure, panels = _stacked([WAVE_IN] * len(tracks))
        for panel, (name, colour, _, starts), (low, high) in zip(panels, tracks, envelopes, strict=True):
            times_s = np.linspace(0, len(starts) * FRAME_MS / 1000, len(low))
            panel.fill_between(times_s, low, high, color=colour, linewidth=0.5)
            panel.set(xlim=(0, longest_s), ylim=(-loudest, loudest), yticks=[0], yticklabels=[name])
        if beside is not None and beside.in_step:
            _mark(panels[-1], beside, loudest)
        _time_line(panels)
        return _svg(figure)


def spectrograms(said: Signal | None, heard: Signal, beside: Beside | None) -> str:
    """Side by side, in bands of the mel scale; each [n] at RATE_HZ, frame beside frame where `beside` knows them."""
    tracks = [] if said is None else [("made", said, frame_starts(said))]
    tracks.append(("heard", heard, frame_starts(heard)) if beside is None else ("heard", beside.levelled, beside.there))
    pictures = [_columns(mel_db(signal, starts)) for _, signal, starts in tracks]
    loudest = max(float(np.max(picture)) for picture in pictures)
    bands_hz = mel_bands_hz()
    with rc_context(_STYLE):
        height = SPECTRUM_IN + AXIS_IN
        figure = Figure(figsize=(WIDTH_IN, height))
        wide = (WIDTH_IN - LABEL_IN) / 2 - BETWEEN_IN
        for number, ((name, _, starts), picture) in enumerate(zip(tracks, pictures, strict=True)):
            left = LABEL_IN + number * (wide + BETWEEN_IN)
            panel = figure.add_axes((left / WIDTH_IN, AXIS_IN / height, wide / WIDTH_IN, (SPECTRUM_IN - 0.18) / height))
            shades = np.round((picture - loudest) / SHOWN_DB * SHADES).clip(-SHADES, 0)
            panel.imshow(
                shades.T,
                aspect="auto",
                origin="lower",
                cmap="magma",
                vmin=-SHADES,
                vmax=0,
                interpolation="none",
                extent=(0, len(starts) * FRAME_MS / 1000, 0, len(bands_hz)),
            )
            panel.set_yticks(np.interp(TICKS_HZ, bands_hz, np.arange(len(bands_hz)) + 0.5))
            panel.set_yticklabels([f"{hz / 1000:g} kHz" for hz in TICKS_HZ] if number == 0 else [])
            panel.set_title(name, fontsize=8, loc="left", pad=3)
            _in_seconds(panel)
        return _svg(figure)


def waterfall(turns: Sequence[tuple[str, Sequence[Span]]], limit_ms: float) -> str:
    """A lane for each stage of each turn, by its name, from the caller's last sound on; and a line at the limit."""
    lanes_in = LANE_IN * len(STAGES) + BETWEEN_TURNS_IN
    last_ms = max((span.to_ms for _, spans in turns for span in spans), default=0.0)
    first_ms = min((span.from_ms for _, spans in turns for span in spans), default=0.0)
    with rc_context(_STYLE):
        figure, (panel,) = _stacked([lanes_in * len(turns) + 0.05], label_in=1.75)
        for row, (_, spans) in enumerate(turns):
            for span in spans:
                lane = STAGES.index(span.stage)
                panel.barh(
                    row * lanes_in + lane * LANE_IN,
                    span.to_ms - span.from_ms,
                    LANE_IN,
                    span.from_ms,
                    align="edge",
                    color=_STAGE[lane],
                )
            if spans:
                is_heard = spans[-1].stage == ON_ITS_WAY
                text = f" {spans[-1].to_ms:,.0f} ms" if is_heard else " nothing heard"
                panel.text(spans[-1].to_ms, row * lanes_in + LANE_IN * len(STAGES) / 2, text, va="center", color=_INK)
        panel.axvline(0, color=_LINE, linewidth=0.8)
        panel.axvline(limit_ms, color=_BAD, linewidth=0.8, linestyle=(0, (4, 3)))
        panel.set(
            xlim=(min(0.0, first_ms), max(limit_ms, last_ms) * 1.12),
            ylim=(lanes_in * len(turns), -BETWEEN_TURNS_IN),
            yticks=[row * lanes_in + LANE_IN * len(STAGES) / 2 for row in range(len(turns))],
            yticklabels=[name for name, _ in turns],
        )
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f} ms")
        return _svg(figure)


def trend(values: Sequence[float | None], limit: float, *, at_most: bool) -> str:
    """A figure of runs one after another, the last one of which is this, beside its limit; None is not measurable."""
    known = [math.nan if value is None else value for value in values]
    with rc_context(_STYLE):
        figure = Figure(figsize=TREND_IN)
        panel = figure.add_axes((0.04, 0.08, 0.92, 0.84))
        at = np.arange(len(known))
        panel.axhline(limit, color=_BAD, linewidth=0.8, linestyle=(0, (4, 3)))
        panel.plot(at, known, color=_SAID, linewidth=1.2, marker="o", markersize=2.5)
        for run, value in enumerate(known):
            if not (value <= limit if at_most else value >= limit) and not math.isnan(value):
                panel.plot(run, value, "o", color=_BAD, markersize=4)
        if not math.isnan(known[-1]):
            panel.plot(at[-1], known[-1], "o", markersize=7, markerfacecolor="none", markeredgecolor=_INK)
        seen = [value for value in (*known, limit) if not math.isnan(value)]
        margin = 0.15 * (max(seen) - min(seen)) or 1.0
        panel.set(xlim=(-0.5, len(known) - 0.5), ylim=(min(seen) - margin, max(seen) + margin), xticks=[], yticks=[])
        panel.spines["bottom"].set_visible(False)
        return _svg(figure)


def _envelope(signal: Signal, starts: Positions) -> npt.NDArray[np.float64]:
    """[2, columns]: the lowest and the highest sample of each."""
    frames = cut(signal, starts, FRAME)
    at_a_time = max(1, math.ceil(len(frames) / COLUMNS))
    first = np.arange(0, len(frames), at_a_time)
    return np.stack([np.minimum.reduceat(frames.min(axis=1), first), np.maximum.reduceat(frames.max(axis=1), first)])


def _columns(spectra: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """[columns, bands]: so few that they can be told apart."""
    at_a_time = max(1, math.ceil(len(spectra) / SPECTRUM_COLUMNS))
    first = np.arange(0, len(spectra), at_a_time)
    lengths = np.diff(np.append(first, len(spectra)))
    return np.asarray(np.add.reduceat(spectra, first) / lengths[:, None])


def _mark(panel: Axes, beside: Beside, loudest: float) -> None:
    for first, end in stretches(beside.lost):
        panel.axvspan(first * FRAME_MS / 1000, end * FRAME_MS / 1000, color=_BAD, alpha=0.35, linewidth=1)
    for first, end in (*stretches(beside.booms), *stretches(beside.clicks)):
        middle_s = (first + end) / 2 * FRAME_MS / 1000
        panel.axvline(middle_s, color=_WARN, linewidth=0.9)
        panel.plot(middle_s, 0.9 * loudest, "v", color=_WARN, markersize=5)


def _stacked(heights_in: Sequence[float], label_in: float = LABEL_IN) -> tuple[Figure, list[Axes]]:
    """Panels one below the other, over one axis, with room for labels at their left."""
    whole_in = sum(heights_in) + AXIS_IN
    figure = Figure(figsize=(WIDTH_IN, whole_in))
    panels, below_in = [], whole_in
    for height_in in heights_in:
        below_in -= height_in
        wide = (WIDTH_IN - label_in - 0.1) / WIDTH_IN
        panels.append(figure.add_axes((label_in / WIDTH_IN, below_in / whole_in, wide, height_in / whole_in)))
    return figure, panels


def _time_line(panels: Sequence[Axes]) -> None:
    for panel in panels[:-1]:
        panel.tick_params(bottom=False, labelbottom=False)
    _in_seconds(panels[-1])


def _in_seconds(panel: Axes) -> None:
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g} s")


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True)
    drawn = out.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<g id="[^"]*"', "<g", drawn)  # they come again in each picture of the page
    drawn = re.sub(r"<svg[^>]*>", lambda tag: re.sub(r' (?:width|height)="[^"]*"', "", tag[0]), drawn, count=1)
    drawn = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1system-ui, sans-serif", drawn)
    drawn = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), drawn)
    for token, name in zip((_INK, _SOFT, _LINE, _SAID, _HEARD, _BAD, _WARN, *_STAGE), _COLOURS, strict=True):
        drawn = drawn.replace(token, f"var(--{name})")
    return drawn
