"""Figures of one run: summaries of samples, ratios, bounds, and the machine they were taken on."""

import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import typer
from rich.table import Table

from daemons.errors import EXIT_FAILED
from ops.progress import console

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write it as JSON; - is stdout.")]


@dataclass(frozen=True, slots=True)
class Summary:
    """What n samples amount to. Percentiles are samples themselves (nearest rank).

    Fewer than 20 samples have no P95 and fewer than 100 no P99, only a maximum: those are None then.
    """

    n: int
    median: float
    p95: float | None
    p99: float | None
    max: float

    @property
    def p95_or_max(self) -> float:
        """What a bound on the P95 is held against: with few samples that is the maximum."""
        return self.max if self.p95 is None else self.p95

    @classmethod
    def of(cls, samples: Iterable[float]) -> "Summary":
        """Raises ValueError when there are none."""
        ordered = sorted(samples)
        if not ordered:
            raise ValueError("nothing was measured")
        return cls(
            len(ordered), statistics.median(ordered), _percentile(ordered, 95), _percentile(ordered, 99), ordered[-1]
        )


def _percentile(ordered: list[float], percent: int) -> float | None:
    rank = -(-len(ordered) * percent // 100)
    return ordered[rank - 1] if rank < len(ordered) else None


@dataclass(frozen=True, slots=True)
class Bound:
    """What a run promises. A run that misses one fails."""

    name: str
    measured: float
    limit: float
    unit: str = ""
    kind: Literal["at most", "at least"] = "at most"

    @property
    def held(self) -> bool:
        """Never by what could not be measured (NaN)."""
        return self.measured <= self.limit if self.kind == "at most" else self.measured >= self.limit


Row = dict[str, str | float | None]
"""A line of a table: its cells by the names of the columns; None where there is no figure."""


@dataclass
class Report:
    """One run, filled by whoever measures: `show` it, write `as_data`, or leave both to `finish`.

    `facts` say how it was taken (seed, rounds, versions). `samples` are figures of many, by name, all in `unit`;
    `counts` are single figures; `ratios` compare figures of this run and no other. `tables` are rows by their title,
    those of one with the same columns.
    """

    title: str
    unit: str = "ms"
    facts: dict[str, str | int | float] = field(default_factory=dict)
    samples: dict[str, Summary] = field(default_factory=dict)
    counts: dict[str, int | float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)
    bounds: list[Bound] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(bound.held for bound in self.bounds)

    def as_data(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "ok": self.ok,
            "machine": machine(),
            "facts": self.facts,
            "unit": self.unit,
            "samples": {name: _summary_data(summary) for name, summary in self.samples.items()},
            "counts": self.counts,
            "ratios": self.ratios,
            "tables": {title: [_row_data(row) for row in rows] for title, rows in self.tables.items()},
            "bounds": [_bound_data(bound) for bound in self.bounds],
        }

    def show(self) -> None:
        console.print(f"[bold]{self.title}[/bold]")
        console.print(machine(), markup=False)
        if self.facts:
            console.print(", ".join(f"{name} {value}" for name, value in self.facts.items()), markup=False)
        if self.samples:
            table = _table(self.unit, "n", "median", "P95", "P99", "max")
            for name, s in self.samples.items():
                table.add_row(name, str(s.n), *(figure(value) for value in (s.median, s.p95, s.p99, s.max)))
            console.print(table)
        for name, count in self.counts.items():
            console.print(f"{name}: {figure(count)}", markup=False)
        for name, ratio in self.ratios.items():
            console.print(f"{name}: {ratio:.2f} times", markup=False)
        for title, rows in self.tables.items():
            shown = _table(*rows[0])
            for row in rows:
                shown.add_row(*(cell if isinstance(cell, str) else figure(cell) for cell in row.values()))
            console.print(f"[bold]{title}[/bold]")
            console.print(shown)
        for bound in self.bounds:
            mark = "[green]held[/green]  " if bound.held else "[red]MISSED[/red]"
            console.print(f"{mark} {bound.name}: ", end="")
            unit = bound.unit and f" {bound.unit}"
            said = f"{figure(bound.measured)}{unit}, {bound.kind} {figure(bound.limit)}{unit}"
            console.print(said, markup=False)

    def finish(self, json_file: Path | None) -> None:
        """Show it, or write it where `--json` says; leave the command with exit code 1 when a bound was missed."""
        if json_file is None or str(json_file) != "-":
            self.show()
        if json_file is not None:
            write_json(json_file, self.as_data())
        if not self.ok:
            raise typer.Exit(EXIT_FAILED)


def write_json(path: Path, data: object) -> None:
    """`-` is stdout."""
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        path.write_text(text, encoding="utf-8")


@cache
def machine() -> str:
    """This machine in words: processor, the cores and the memory that this process may use, and its GPUs."""
    cores, memory_gb = len(os.sched_getaffinity(0)), _memory_bytes() / 1e9
    words = [_processor(), f"{cores} core{'s' if cores > 1 else ''}", f"{memory_gb:.0f} GB", *(_gpus() or ["no GPU"])]
    return ", ".join(words)


def _processor() -> str:
    said = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    named = re.search(r"^model name\s*:\s*(.+)$", said, re.MULTILINE)
    return named[1].strip() if named else platform.machine()


def _memory_bytes() -> int:
    whole: int = psutil.virtual_memory().total
    try:
        return min(whole, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return whole


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    said = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    return [] if said.returncode else said.stdout.split("\n")[:-1]


def _summary_data(summary: Summary) -> dict[str, float]:
    """A percentile that too few samples do not have is left out, not filled in."""
    figures = {"median": summary.median, "p95": summary.p95, "p99": summary.p99, "max": summary.max}
    return {"n": summary.n} | {name: value for name, value in figures.items() if value is not None}


def _row_data(row: Row) -> Row:
    """JSON has no infinity, nor NaN."""
    return {name: None if isinstance(cell, float) and not math.isfinite(cell) else cell for name, cell in row.items()}


def _bound_data(bound: Bound) -> dict[str, Any]:
    measured = bound.measured if math.isfinite(bound.measured) else None  # JSON has no NaN
    known = {"name": bound.name, "measured": measured, "kind": bound.kind, "limit": bound.limit, "unit": bound.unit}
    return known | {"held": bound.held}


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="left" if title == titles[0] else "right")
    return table


def figure(value: float | None) -> str:
    """Three digits that mean something, and all of a whole number."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "not measurable"
    if value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
