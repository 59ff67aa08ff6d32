"""Faults that are injected live: into what the box says to a caller, on its way from the speech worker to the agent."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from daemons import wire
from daemons.settings import Settings
from ops.lab.mutate import fault_named
from ops.lab.signals import RATE_HZ
from ops.lab.spoil import Boom, Distort, Loss, Speed, Spoiler
from ops.worker import Worker

# What a whole recording tells by itself must be known of a stream before it comes
BOOMS = (RATE_HZ // 2, 3 * RATE_HZ // 2)
LOUDEST = 0.5  # of the voice
DISTORTED = 0.2
IN_A_ROW = 3  # packets
LONGEST = 10_000  # packets of an answer


def _packets(percent: float) -> frozenset[int]:
    """The numbers of so many of all, IN_A_ROW together: of one alone a codec leaves nothing that can be told."""
    every = round(100 * IN_A_ROW / percent)
    return frozenset(number for number in range(LONGEST) if every - 1 - number % every < IN_A_ROW)


_SPOILERS: dict[str, Callable[[float], Spoiler]] = {
    "boom": lambda peak_dbfs: Boom(peak_dbfs, BOOMS),
    "speed": Speed,
    "distort": lambda drive: Distort(drive, LOUDEST, DISTORTED),
    "loss": lambda percent: Loss(_packets(percent)),
}
FAULTS = tuple(_SPOILERS)  # by their names in ops.lab.mutate


def spoiler(fault: str) -> Spoiler:
    """A new one for each answer, as strong as the fault is at its strongest. Raises KeyError for one not in FAULTS."""
    return _SPOILERS[fault](fault_named(fault).strengths[-1])


@asynccontextmanager
async def speaking(settings: Settings, fault: str | None) -> AsyncIterator[wire.TtsRole]:
    """Whom to ask for in calls while inside: the box's own speech worker, or one that puts `fault` into what that says.

    Raises StepFailed when it does not come up.
    """
    if fault is None:
        yield "tts"
        return
    program = ("ops.spoilt_tts", f"http://127.0.0.1:{settings.tts_port}", fault)
    async with Worker(wire.TTS_LAB, settings.redis, settings.var_dir, program, slots=1):
        yield wire.TTS_LAB
