"""What a drill has asked and what it was answered."""

from collections import Counter

from daemons.registry import (
    AcquireStatus,
    AdoptStatus,
    CallState,
    DrainStatus,
    Heartbeat,
    HeartbeatStatus,
    Probed,
    ProbeStatus,
    Reaped,
    RegisterStatus,
    ReleaseStatus,
    Renewed,
    RenewStatus,
    Standing,
    SwapStatus,
    WorkerState,
)
from ops.drill.registry.clients import Op

_LIVE = [f"OK {state}" for state in WorkerState if state not in (WorkerState.GONE, WorkerState.EXPECTED)]
ANSWERS: dict[str, list[str]] = {
    "register": list(RegisterStatus),
    "heartbeat": [*_LIVE, HeartbeatStatus.UNKNOWN],
    "probe": [*_LIVE, ProbeStatus.UNKNOWN],
    "drain": list(DrainStatus),
    "deregister": list(DrainStatus),
    "acquire": list(AcquireStatus),
    "renew": [*RenewStatus, "OK moving"],
    "swap": list(SwapStatus),
    "adopt": list(AdoptStatus),
    "release": list(ReleaseStatus),
    "cancel": list(ReleaseStatus),
    "reap": ["nothing", "ended", "unhealthy", "gone"],
    "lookup": [*map(str, CallState)],
    "events": ["some", "none"],
    "snapshot": ["OK"],
    "note": ["OK"],
}
"""Every method and all that it can answer."""


class Tally:
    def __init__(self) -> None:
        self.counts = Counter[tuple[str, str]]()
        self.operations = 0

    def count(self, op: Op, answer: object) -> None:
        self.operations += 1
        for word in _words(answer):
            self.counts[op.name, word] += 1

    @property
    def never(self) -> list[str]:
        """Answers that nobody has got yet."""
        return [
            f"{name} {word}" for name, words in ANSWERS.items() for word in words if (name, word) not in self.counts
        ]

    def lines(self) -> list[tuple[str, str, int]]:
        """(method, answer, how often), those first that nobody ought to miss."""
        known = [(name, word) for name, words in ANSWERS.items() for word in words]
        others = sorted(set(self.counts) - set(known))
        return [(name, word, self.counts[name, word]) for name, word in known + others]


def _words(answer: object) -> list[str]:
    match answer:
        case str():  # a status by itself
            return [str(answer)]
        case Heartbeat(status=status, state=state) | Probed(status=status, state=state):
            return [f"{status} {state}" if state else str(status)]
        case Renewed(moving=moving) if moving:
            return ["OK moving"]
        case Standing(state=call_state):
            return [str(call_state)]
        case Reaped():
            kinds = [name for name in ("ended", "unhealthy", "gone") if getattr(answer, name)]
            return kinds or ["nothing"]
        case tuple():
            return ["some" if answer else "none"]
    return [str(getattr(answer, "status", "OK"))]
