"""What runs, what it says of itself, who holds it, and who waits."""

import asyncio
import contextlib
from dataclasses import asdict, dataclass
from typing import Any

import psutil
from rich.table import Table

from daemons.errors import Unavailable
from daemons.registry import Snapshot, connect
from daemons.settings import Settings
from ops.programs import Program, Readiness, probe_all, programs
from ops.progress import console
from ops.supervise import State, Supervisord


@dataclass(frozen=True)
class ProgramStatus:
    name: str
    state: str
    ready: bool
    why_not: str
    pid: int
    boot: str
    in_flight: int | None
    slots: int | None
    model: str
    rss_mb: float | None  # of the process and its children


@dataclass(frozen=True)
class Status:
    supervisord_pid: int | None
    programs: list[ProgramStatus]
    leases: list[dict[str, Any]]
    queue: list[str]
    registry: str  # "ok", or why it does not answer

    @property
    def ok(self) -> bool:
        return self.registry == "ok" and all(program.ready for program in self.programs)

    def as_data(self) -> dict[str, Any]:
        return {"ok": self.ok} | asdict(self)


def read(settings: Settings) -> Status:
    supervisord = Supervisord(settings)
    pid = supervisord.pid()
    states = {state.name: state for state in supervisord.states()} if pid else {}
    chosen = tuple(program for program in programs(settings) if not states or program.name in states)
    answers, (snapshot, registry) = asyncio.run(_ask(settings, chosen))
    return Status(
        supervisord_pid=pid,
        programs=[_program_status(program, states.get(program.name), answers[program.name]) for program in chosen],
        leases=[
            {"call": lease.call, "worker": worker.worker, "role": worker.role, "slot": lease.slot, "fence": lease.fence}
            for worker in (snapshot.workers if snapshot else ())
            for lease in worker.leases
        ],
        queue=[call.call for call in snapshot.queue] if snapshot else [],
        registry=registry,
    )


def show(status: Status) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("program", "state", "ready", "boot", "in flight", "slots", "model", "MB"):
        table.add_column(title, justify="right" if title in {"in flight", "slots", "MB"} else "left")
    for program in status.programs:
        table.add_row(
            program.name,
            program.state,
            "yes" if program.ready else f"no: {program.why_not}",
            program.boot[:8],
            _cell(program.in_flight),
            _cell(program.slots),
            program.model,
            _cell(program.rss_mb),
        )
    console.print(table)
    if status.supervisord_pid is None:
        console.print("supervisord is not running: `callbox up` starts the box")
    if status.registry != "ok":
        console.print(f"registry: {status.registry}")
        return
    for lease in status.leases:
        console.print("call {call}: {role} {worker}, slot {slot}, fence {fence}".format_map(lease))
    console.print(f"{len({lease['call'] for lease in status.leases})} calls, {len(status.queue)} waiting")


async def _ask(
    settings: Settings, chosen: tuple[Program, ...]
) -> tuple[dict[str, Readiness], tuple[Snapshot | None, str]]:
    answers, registry = await asyncio.gather(probe_all(settings, chosen), _snapshot(settings))
    return answers, registry


async def _snapshot(settings: Settings) -> tuple[Snapshot | None, str]:
    registry = connect(settings.redis)
    try:
        return await registry.snapshot(), "ok"
    except Unavailable as error:
        return None, str(error)
    finally:
        await registry.close()


def _program_status(program: Program, state: State | None, answer: Readiness) -> ProgramStatus:
    facts = answer.facts
    pid = state.pid if state else 0
    return ProgramStatus(
        name=program.name,
        state=state.state if state else "-",
        ready=answer.ready,
        why_not=answer.why_not,
        pid=pid,
        boot=str(facts.get("boot", "")),
        in_flight=facts.get("in_flight"),
        slots=facts.get("slots"),
        model=str(facts.get("model", "")),
        rss_mb=_rss_mb(pid) if pid else None,
    )


def _rss_mb(pid: int) -> float | None:
    rss_bytes = 0
    try:
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                rss_bytes += member.memory_info().rss
    except psutil.Error:
        return None
    return round(rss_bytes / 1e6, 1)


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
