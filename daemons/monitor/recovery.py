"""What to do about a program that gives up, ends again and again, or hangs: decisions alone, without I/O or a clock.

`now_s` is monotonic and the caller's.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from daemons.health import BEAT_LIMIT_S, why_not_live
from daemons.wire import ProgramEvent

FATAL_FIRST_S, FATAL_MOST_S = 30.0, 300.0  # waits; supervisord's own eleven tries before took a minute
LOOP_ENDS, LOOP_WINDOW_S = 5, 120.0  # so many unexpected ends within so long are a crash loop
# A program that ends each 20 s serves in between: hold it long enough to spare the processor, not to end the service.
LOOP_FIRST_S, LOOP_MOST_S = 10.0, 60.0
WELL_S = 120.0  # who stays up for so long starts with a clean record

STALLED_PROBES = 3
STALLED_S = 10.0  # of answers that say "not live", which health says only after 10 s without a beat
SILENT_S = 30.0  # of no answer at all: a machine under load is slow to answer, too
NEWBORN_S = 60.0  # until a process must have answered for the first time
LEASES_S = 10.0  # for agents to swap to another worker: they ask each 3 s
TERM_S = 4.0  # for SIGTERM to end a process whose leases are gone

WORDS: Mapping[ProgramEvent, str] = {
    ProgramEvent.FATAL: "{program} does not start: it ended within a second, over and over. Tried again in {wait_s} s",
    ProgramEvent.STARTED_AGAIN: "{program} runs again: it was started after a wait of {wait_s} s",
    ProgramEvent.WANTS_NO_RESTART: "{program} ended and asked not to be restarted: a bad setting, a taken port, or a "
    "successor. It waits for you: read its log, then `callbox restart {program}`",
    ProgramEvent.CRASH_LOOP: "{program} is in a crash loop: {ends} unexpected ends within {window_s} s. Held back for "
    "{wait_s} s",
    ProgramEvent.CRASH_LOOP_OVER: "{program} is out of its crash loop: it has stayed up for {up_s} s",
    ProgramEvent.STALLED: "{program} hangs: {why}. Its worker gets no more calls, agents move to another, then it is "
    "restarted",
    ProgramEvent.RESTARTED: "{program} hung and got {signal}, {after_s} s after that was noticed; supervisord starts "
    "it anew",
}


@dataclass(frozen=True, slots=True)
class Note:
    """To be told: in the log, and in the audit log under these names."""

    kind: ProgramEvent
    fields: Mapping[str, str]

    def __str__(self) -> str:
        return WORDS[self.kind].format_map(self.fields)


class Order(Enum):
    """What supervisord is asked to do."""

    HOLD = "hold"
    START = "start"


@dataclass(frozen=True, slots=True)
class Change:
    """A state change of a program, in supervisord's words."""

    to: str
    was: str = ""
    expected: bool = False  # of EXITED: the exit code was "do not restart me"


class Program:
    """One program's record: when it is started again, and when it is held back.

    `load_s`: how long it may take until it serves; ending before that is no better than ending at once.
    """

    def __init__(self, name: str, load_s: float = 0.0) -> None:
        self.name = name
        self._load_s = load_s
        self._ends_s: deque[float] = deque()
        self._up_since_s: float | None = None
        self._waits = 0  # since it was well
        self._wait_s = 0.0
        self._start_at_s: float | None = None
        self._announce = False  # once it runs: it was started from here
        self.held = False  # it is down because it was asked to be from here
        self.looping = False

    def changed(self, change: Change, now_s: float) -> "list[Note | Order]":
        if change.to != "RUNNING":
            self._up_since_s = None
        match change.to:
            case "RUNNING":
                self._up_since_s = now_s
                if self._announce:
                    self._announce = False
                    return [self._note(ProgramEvent.STARTED_AGAIN, wait_s=self._wait_s)]
            case "FATAL" if self._start_at_s is None:  # else it is known already
                self._wait(FATAL_FIRST_S, FATAL_MOST_S, now_s)
                return [self._note(ProgramEvent.FATAL, wait_s=self._wait_s)]
            case "EXITED" if change.expected:
                self._forget()
                return [self._note(ProgramEvent.WANTS_NO_RESTART)]
            case "EXITED" if not self.held:  # else it happened before it was held, and is heard of late
                return self._ended(now_s)
            case "STOPPING" | "STOPPED" if not self.held:
                self._forget()  # a person's word
            case "STARTING" if change.was in ("STOPPED", "FATAL"):
                self._start_at_s, self.held = None, False  # whoever did it
        return []

    def tick(self, state: str, now_s: float) -> "list[Note | Order]":
        """Time has passed, and supervisord says that the program is in this state."""
        if state == "FATAL" and self._start_at_s is None:  # before there was a listener to hear of it
            return self.changed(Change("FATAL"), now_s)
        if self._start_at_s is not None and now_s >= self._start_at_s and state != "STOPPING":
            self._start_at_s, self.held = None, False
            if state in ("STOPPED", "FATAL"):
                self._announce = True
                return [Order.START]
        well_s = WELL_S + self._load_s
        if self._up_since_s is not None and now_s - self._up_since_s >= well_s and state == "RUNNING":
            over = [self._note(ProgramEvent.CRASH_LOOP_OVER, up_s=now_s - self._up_since_s)] if self.looping else []
            self._forget()
            self._up_since_s = now_s
            return [*over]
        return []

    def refused(self, order: Order, now_s: float) -> None:
        """supervisord would not: hold what somebody else has stopped meanwhile, or start what cannot be started."""
        if order is Order.HOLD:
            self._start_at_s, self.held = None, False
        else:
            self._announce = False
            self._wait(FATAL_FIRST_S, FATAL_MOST_S, now_s)

    def held_before(self, now_s: float) -> None:
        """It is down because the listener before this one held it."""
        self.held, self._start_at_s = True, now_s

    def _ended(self, now_s: float) -> "list[Note | Order]":
        self._ends_s.append(now_s)
        while now_s - self._ends_s[0] > LOOP_WINDOW_S + LOOP_ENDS * self._load_s:
            self._ends_s.popleft()
        if not self.looping and len(self._ends_s) < LOOP_ENDS:
            return []
        self.looping = self.held = True
        window_s = now_s - self._ends_s[0]
        self._wait(LOOP_FIRST_S, LOOP_MOST_S, now_s)
        return [
            Order.HOLD,
            self._note(ProgramEvent.CRASH_LOOP, ends=len(self._ends_s), window_s=window_s, wait_s=self._wait_s),
        ]

    def _wait(self, first_s: float, most_s: float, now_s: float) -> None:
        self._wait_s = min(first_s * 2**self._waits, most_s)
        self._waits = min(self._waits + 1, 10)
        self._start_at_s = now_s + self._wait_s

    def _forget(self) -> None:
        self._ends_s.clear()
        self._waits, self._start_at_s = 0, None
        self._announce = self.held = self.looping = False

    def _note(self, kind: ProgramEvent, **fields: float) -> Note:
        return Note(kind, {"program": self.name, **{name: f"{value:.0f}" for name, value in fields.items()}})


@dataclass(frozen=True, slots=True)
class Probe:
    """What was seen at a daemon's health port; `problem` is empty when it is live."""

    problem: str = ""
    answered: bool = True
    beats: bool = True  # its event loop runs, so it hears a SIGTERM
    worker: str = ""
    boot: str = ""


def judged(shown: Mapping[str, Any], pid: int) -> Probe:
    """What /health shows, as a probe of the process that supervisord started.

    An answer about another process says nothing about this one; a load may keep the loop from beating for long.
    """
    if shown["pid"] != pid:
        return Probe()
    loads = shown["phase"] == "loading" and shown["age_s"] <= shown["load_timeout_s"]
    problem = None if loads else why_not_live(dict(shown))
    return Probe(problem or "", True, shown["beat_age_s"] <= BEAT_LIMIT_S, shown["worker"], shown["boot"])


class Process:
    """One process of a daemon, for as long as it lives: whether it is stalled, and how it is ended then.

    What is found stalled is restarted even if it recovers: its worker drains already, and nothing takes that back.
    """

    def __init__(self, pid: int, now_s: float) -> None:
        self.pid = pid
        self.last = Probe(answered=False)  # the last that was answered, by this process itself
        self.stalled_at_s: float | None = None
        self._born_s = now_s
        self._bad_since_s: float | None = None
        self._bad_probes = 0
        self._told_s: float | None = None

    def is_stalled(self, probe: Probe, now_s: float) -> bool:
        """True once, when this probe makes it so. Never on one bad probe."""
        if probe.answered and probe.boot:
            self.last = probe
        if not probe.problem:
            self._bad_since_s, self._bad_probes = None, 0
            return False
        if self._bad_since_s is None:
            self._bad_since_s = now_s
        self._bad_probes += 1
        if not self.last.answered and now_s - self._born_s < NEWBORN_S:
            return False
        long_enough = now_s - self._bad_since_s >= (STALLED_S if probe.answered else SILENT_S)
        if self._bad_probes < STALLED_PROBES or not long_enough or self.stalled_at_s is not None:
            return False
        self.stalled_at_s = now_s
        return True

    def signal(self, is_waited_for: Callable[[], bool], now_s: float) -> str | None:
        """What to send to a stalled process now: nothing, TERM or KILL.

        `is_waited_for` (asked only when it matters): agents hold it, and there is another worker they can move to.
        """
        if self.stalled_at_s is None:
            return None
        if self._told_s is not None:
            return "KILL" if now_s - self._told_s >= TERM_S else None
        if is_waited_for() and now_s - self.stalled_at_s < LEASES_S:
            return None
        self._told_s = now_s
        return "TERM" if self.last.beats else "KILL"
