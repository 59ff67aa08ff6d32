"""How long a caller will wait, from how long calls have lasted."""

from collections import deque
from statistics import median

from daemons.registry import Event

REMEMBERED_CALLS = 50


class CallLengths:
    """Follows the audit log; knows nothing until a call has ended."""

    def __init__(self) -> None:
        self._began_ms: dict[str, int] = {}
        self._lengths_s: deque[float] = deque(maxlen=REMEMBERED_CALLS)

    def follow(self, events: tuple[Event, ...]) -> None:
        for event in events:
            call = event.data.get("call", "")
            if event.kind == "granted":
                self._began_ms[call] = event.at_ms
            elif event.kind in ("released", "lost") and (began_ms := self._began_ms.pop(call, None)) is not None:
                self._lengths_s.append((event.at_ms - began_ms) / 1000)

    def eta_s(self, position: int, slots: int) -> float | None:
        """Until the caller at `position` (1 is next) has a slot: one of `slots` calls ends each length / slots."""
        if not self._lengths_s:
            return None
        return round(position * median(self._lengths_s) / max(1, slots), 1)
