"""One append-only JSONL file of events per call, stamped with CLOCK_MONOTONIC."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from daemons.clock import Clock

log = logging.getLogger(__name__)
MAX_BYTES = 16 * 2**20


def prune(folder: Path, keep: int) -> None:
    """Remove all traces but the `keep` newest."""
    by_age = sorted(folder.glob("*.jsonl"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in by_age[keep:]:
        path.unlink(missing_ok=True)


class Trace:
    """Events of one call. A disk that is full or a file past MAX_BYTES costs the trace, never the call."""

    def __init__(self, path: Path, clock: Clock, on_event: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._clock = clock
        self._on_event = on_event
        self._path = path
        self._file: BinaryIO | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            log.warning("no trace for this call: %s", error)

    def emit(self, event: str, *, at_ns: int | None = None, **data: Any) -> None:
        """Write one event; `at_ns` when it happened earlier than now."""
        record = {"event": event, "t_ns": self._clock.now_ns() if at_ns is None else at_ns, **data}
        if self._on_event is not None:
            self._on_event(record)
        if self._file is None:
            return
        line = json.dumps(record, ensure_ascii=False) + "\n"
        try:
            self._file.write(line.encode(errors="replace"))
            self._file.flush()
            if self._file.tell() >= MAX_BYTES:
                self._give_up(f"has reached {MAX_BYTES} bytes")
        except OSError as error:
            self._give_up(f"cannot be written: {error}")

    def _give_up(self, why: str) -> None:
        log.warning("trace %s %s; the rest of this call is not traced", self._path, why)
        self.close()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                log.warning("trace %s did not close: %s", self._path, error)

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
