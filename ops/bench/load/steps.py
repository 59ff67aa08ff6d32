"""One step of load: so many calls at once, dialled by robots in processes of their own, and what they had."""

import asyncio
import itertools
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from daemons.settings import ROOT, environment_without_settings
from ops.bench.load.robots import READY, Answer, CallTaken, Plan, taken
from ops.caller import REPLY_TIMEOUT_S
from ops.figures import Summary
from ops.run import StepFailed

RESPONSE_P95_LIMIT_MS = 1500.0
GAP_LIMIT_MS = 60.0
CALLS_PER_PROCESS = 4
DIAL_EVERY_S = 0.5
GREETED_S = 3.0  # after the last dial
START_S = 60.0
END_S = 2 * REPLY_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds for each call and minute: of a program, or of the robots together."""

    by_program: Mapping[str, float]
    event_loop: float  # of the agent: the thread that runs its Python
    robots: float
    machine_share: float  # of all cores of the machine, whoever used them


@dataclass(frozen=True, slots=True)
class Step:
    """`answers` are those to questions that ended while all calls were there.

    `pauses_ms`: the longest pause that belongs to the words of an answer, where there is any.
    """

    calls: int
    answers: Sequence[Answer]
    lost: Sequence[str]
    spent: Spent
    pauses_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def response_ms(self) -> Summary:
        """Infinite where nothing was heard."""
        return Summary.of([float("inf") if one.response_ms is None else one.response_ms for one in self.answers])

    @property
    def gap_ms(self) -> float:
        """The longest silence that belongs to no answer's words."""
        return max(max(0.0, one.gap_ms - self.pauses_ms.get(one.text, 0.0)) for one in self.answers)

    def gave_way(self) -> list[str]:
        """The gates that it missed, in words."""
        if self.lost:
            return [f"{len(self.lost)} of {self.calls} calls lost, the first: {self.lost[0]}"]
        if not self.answers:
            return ["no call was answered"]
        missed = []
        if (answered_ms := self.response_ms.p95_or_max) > RESPONSE_P95_LIMIT_MS:
            missed.append(f"answers after {answered_ms:.0f} ms (P95)")
        if self.gap_ms > GAP_LIMIT_MS:
            missed.append(f"a gap of {self.gap_ms:.0f} ms inside an answer")
        return missed


def next_calls(carried: int, too_many: int | None, most: int) -> int | None:
    """Twice as many until a step fails, then halfway between; None when the largest number is known."""
    if too_many is None:
        return min(2 * carried, most) if 0 < carried < most else None if carried else 1
    return (carried + too_many) // 2 if too_many - carried > 1 else None


async def step(
    calls: int, seconds: float, *, door_url: str, question: Path, programs: Mapping[str, Sequence[psutil.Process]]
) -> Step:
    """`calls` robots dial one after another and keep talking for `seconds` once all are there.

    `question` is a WAV file; `programs` are those of the box, whose CPU time is counted. Raises StepFailed.
    """
    async with _robots(calls, door_url, question) as processes:
        robots = [psutil.Process(process.pid) for process in processes]
        began_ns = time.monotonic_ns()
        dials_ns = [began_ns + round(number * DIAL_EVERY_S * 1e9) for number in range(calls)]
        there_ns = dials_ns[-1] + round(GREETED_S * 1e9)
        until_ns = there_ns + round(seconds * 1e9)
        for number, process in enumerate(processes):
            plan = Plan(dial_ns=dials_ns[number :: len(processes)], until_ns=until_ns)
            assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
            process.stdin.write(plan.model_dump_json().encode() + b"\n")
        await _until(there_ns)
        before = _Clocks.of(programs, robots)
        await _until(until_ns)
        spent = _Clocks.of(programs, robots).since(before, calls)
        came = list(itertools.chain(*await asyncio.gather(*(_said(process) for process in processes))))
    return Step(
        calls,
        [answer for call in came for answer in call.answers if answer.asked_ns >= there_ns],
        [call.lost for call in came if call.lost],
        spent,
    )


@dataclass(frozen=True, slots=True)
class _Clocks:
    """CPU seconds so far, and when."""

    at_s: float
    by_program: Mapping[str, float]
    event_loop: float
    robots: float
    machine: float

    @classmethod
    def of(cls, programs: Mapping[str, Sequence[psutil.Process]], robots: Sequence[psutil.Process]) -> "_Clocks":
        [agent] = programs["agent"]
        used = psutil.cpu_times()
        return cls(
            time.monotonic(),
            {name: sum(map(_cpu_s, processes)) for name, processes in programs.items()},
            next(thread.user_time + thread.system_time for thread in agent.threads() if thread.id == agent.pid),
            sum(map(_cpu_s, robots)),
            sum(used) - used.idle - used.iowait - used.guest - used.guest_nice,
        )

    def since(self, before: "_Clocks", calls: int) -> Spent:
        minutes = (self.at_s - before.at_s) / 60
        a_call = calls * minutes
        return Spent(
            {name: (cpu_s - before.by_program[name]) / a_call for name, cpu_s in self.by_program.items()},
            (self.event_loop - before.event_loop) / a_call,
            (self.robots - before.robots) / a_call,
            (self.machine - before.machine) / (minutes * 60 * (psutil.cpu_count() or 1)),
        )


def _cpu_s(process: psutil.Process) -> float:
    spent = process.cpu_times()
    return float(spent.user + spent.system)


@asynccontextmanager
async def _robots(calls: int, door_url: str, question: Path) -> AsyncIterator[list[Process]]:
    """Processes for so many robots, ready for their plans. Raises StepFailed."""
    command = ("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "ops.bench.load.robots", door_url, str(question))
    async with AsyncExitStack() as stack:
        processes = []
        for _ in range(-(-calls // CALLS_PER_PROCESS)):
            process = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, cwd=ROOT, env=environment_without_settings()
            )
            stack.push_async_callback(_end, process)
            processes.append(process)
        for process in processes:
            if (said := await _line(process, START_S)) != READY:
                raise StepFailed(f"robots do not start; they say {said!r}")
        yield processes


async def _said(process: Process) -> list[CallTaken]:
    return taken.validate_json(await _line(process, END_S))


async def _line(process: Process, timeout_s: float) -> str:
    """What it says next. Raises StepFailed when it says nothing for so long."""
    assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
    try:
        return (await asyncio.wait_for(process.stdout.readline(), timeout_s)).decode().strip()
    except TimeoutError:
        raise StepFailed(f"robots say nothing for {timeout_s:g} s") from None


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def _until(at_ns: int) -> None:
    await asyncio.sleep((at_ns - time.monotonic_ns()) / 1e9)
