"""How long steps show themselves: a bar on a terminal, a line now and then in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import TransferSpeedColumn as SpeedColumn

LINE_EVERY_S = 15.0
LOG_WIDTH = 160

console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else LOG_WIDTH)


OnBytes = Callable[[int, int | None], None]
"""(bytes so far, bytes in all or None)"""


@contextlib.contextmanager
def bytes_bar(what: str) -> Iterator[OnBytes]:
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), SpeedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)
        return
    line = _every(LINE_EVERY_S)
    console.print(what)

    def say(done: int, total: int | None) -> None:
        if line():
            console.print(f"{what}: {done / 1e6:.0f} of {f'{total / 1e6:.0f}' if total else '?'} MB")

    yield say


@contextlib.contextmanager
def spinner(what: str) -> Iterator[Callable[[str], None]]:
    """For work of unknown length; what is yielded shows its latest word."""
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(what, total=None)
            yield lambda word: progress.update(task, description=f"{what}: {word[:80]}")
        return
    line = _every(LINE_EVERY_S)
    console.print(what)

    def say(word: str) -> None:
        if line():
            console.print(f"{what}: {word[:80]}")

    yield say


@contextlib.contextmanager
def count_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """For `total` steps of one kind; what is yielded takes how many more are done. On stderr: stdout is for results."""
    progress_console = Console(stderr=True, highlight=False, soft_wrap=True)
    if progress_console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=progress_console, transient=True) as progress:
            task = progress.add_task(what, total=total)
            yield lambda more: progress.advance(task, more)
        return
    line, done = _every(LINE_EVERY_S), 0

    def say(more: int) -> None:
        nonlocal done
        done += more
        if line():
            progress_console.print(f"{what}: {done:,} of {total:,}")

    yield say


def _every(seconds: float) -> Callable[[], bool]:
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        if time.monotonic() - last < seconds:
            return False
        last = time.monotonic()
        return True

    return due
