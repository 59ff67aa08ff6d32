"""Bringing the box up, down, and up again."""

import asyncio
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from daemons.errors import EXIT_DO_NOT_RESTART, CallboxError, ConfigurationError
from daemons.ports import listeners
from daemons.settings import PREFIX, Settings
from ops import livekit, models, page, ports, tls, vram
from ops.programs import STOP_ORDER, Program, Readiness, probe_all, programs
from ops.progress import console
from ops.render import link_for_supervisorctl, render
from ops.run import StepFailed
from ops.supervise import State, Supervisord

POLL_S = 0.3
READY_MARGIN_S = 30.0
LOADS = 3  # that a program may begin until it is ready: one that takes minutes for each is no crash loop yet
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 8192


def up(settings: Settings) -> None:
    """From an installed Python environment to a box that answers calls. Raises CallboxError, naming the step."""
    began = time.monotonic()
    if vram.wanted(settings):
        with _step("graphics cards"):  # before gigabytes are fetched for them
            for budget in vram.check(settings, in_use=False):
                console.print(f"  {budget}")
    livekit_bin = install(settings)
    with _step("configuration"):
        page.publish(settings)
        render(settings, livekit_bin)
        link_for_supervisorctl(settings, Path(sys.prefix))
        console.print(f"  {settings.var_dir / 'etc'}")
    chosen = programs(settings, livekit_bin)
    with _step("programs"):
        start(settings, chosen)
    _welcome(settings, chosen, time.monotonic() - began)


def install(settings: Settings, more_models: tuple[str, ...] = ()) -> Path:
    """Fetch and build what is missing, start nothing; livekit-server's path. Raises CallboxError, naming the step."""
    with _step("livekit-server"):
        livekit_bin = livekit.resolve(settings)
        console.print(f"  {livekit_bin} ({livekit.version(livekit_bin)})")
    with _step("models"):
        names = [*models.needed(settings), *more_models]
        models.pull(settings, names, models.catalogue())
        console.print(f"  {', '.join(names)}: in {settings.models_dir}")
    with _step("page"):
        page.build(settings)
        console.print(f"  {page.WEB / 'dist'}")
    return livekit_bin


def start(settings: Settings, chosen: tuple[Program, ...]) -> None:
    """Start what is rendered, or bring a running box to it, and wait until every program is ready."""
    supervisord = Supervisord(settings)
    if supervisord.pid() is None and (strays := supervisord.end_strays()):
        console.print(f"  ended {len(strays)} processes that a killed supervisord had left")
    in_the_way = list(ports.taken(settings, chosen, supervisord.family()))
    if in_the_way:
        raise ConfigurationError("\n  ".join(in_the_way))
    if supervisord.pid() is None:
        vram.check(settings, in_use=True)
        supervisord.start()
    else:
        for done in supervisord.apply(STOP_ORDER):
            console.print(f"  {done}")
    wait_ready(settings, supervisord, chosen)


def wait_ready(settings: Settings, supervisord: Supervisord, chosen: tuple[Program, ...]) -> None:
    """Return when every program is ready.

    Raises StepFailed when one gives up, when one ends over and over while it loads, or when it takes too long.
    """
    began = time.monotonic()
    waiting = {program.name: program for program in chosen}
    loads: dict[str, set[int]] = {name: set() for name in waiting}  # the processes that ran
    while waiting:
        states = {state.name: state for state in supervisord.states()}
        answers = asyncio.run(probe_all(settings, tuple(waiting.values())))
        for name, answer in answers.items():
            state = states.get(name)
            if state is not None and state.state == "RUNNING":
                loads[name].add(state.pid)
            if state is None or _has_given_up(state) or len(loads[name]) > LOADS:
                raise StepFailed(_why_it_gave_up(settings, name, state))
            if answer.ready and _is_the_supervised(answer, state):
                console.print(f"  {name} is ready{_identity(answer)}")
                del waiting[name]
        if waiting and time.monotonic() - began > settings.load_timeout_s + READY_MARGIN_S:
            reasons = "\n  ".join(f"{name}: {answers[name].why_not}" for name in waiting if name in answers)
            raise StepFailed(
                f"not ready after {time.monotonic() - began:.0f} s:\n  {reasons}\n"
                f"their logs: {settings.var_dir / 'log'}"
            )
        if waiting:
            time.sleep(POLL_S)


def down(settings: Settings) -> None:
    """Stop in order, so that calls end in words and nobody's peer vanishes first."""
    supervisord = Supervisord(settings)
    if supervisord.pid() is None:
        console.print("nothing is running")
        return
    running = {state.name for state in supervisord.states() if state.pid}
    for name in STOP_ORDER:
        if name in running:
            supervisord.stop(name)
            console.print(f"  {name} stopped")
    supervisord.shut_down()
    console.print("the box is down")


def restart(settings: Settings, names: list[str]) -> None:
    """Restart the named programs, all when none is named, and wait until they are ready."""
    supervisord = Supervisord(settings)
    there = {state.name for state in supervisord.states()}
    chosen = [program for program in programs(settings) if program.name in there]
    if strange := set(names) - there:
        raise ConfigurationError(f"no program {', '.join(sorted(strange))}; there are {', '.join(sorted(there))}")
    wanted = set(names) or there
    for name in STOP_ORDER:
        if name in wanted:
            supervisord.stop(name)
    for program in chosen:
        if program.name in wanted:
            supervisord.restart(program.name)
    wait_ready(settings, supervisord, tuple(program for program in chosen if program.name in wanted))


@contextlib.contextmanager
def _step(what: str) -> Iterator[None]:
    console.print(f"[bold]{what}[/bold]")
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{what}: {error}") from error
    except CallboxError as error:
        raise StepFailed(f"{what}: {error}") from error
    except OSError as error:
        raise StepFailed(f"{what}: {error}") from error


def _has_given_up(state: State) -> bool:
    ended_for_good = state.state in {"BACKOFF", "EXITED"} and state.exit_status == EXIT_DO_NOT_RESTART
    return state.state in {"FATAL", "STOPPED", "UNKNOWN"} or ended_for_good


def _is_the_supervised(answer: Readiness, state: State) -> bool:
    """Another box's worker may answer on this port; its process is not the one that supervisord started."""
    return bool(answer.facts.get("pid", state.pid) == state.pid)


def _identity(answer: Readiness) -> str:
    said = [str(answer.facts.get("boot", ""))[:8], str(answer.facts.get("model", ""))]
    return f" ({', '.join(word for word in said if word)})" if any(said) else ""


def _why_it_gave_up(settings: Settings, name: str, state: State | None) -> str:
    if state is None:
        return f"supervisord knows no program {name}; run `callbox up` again"
    log = settings.var_dir / "log" / f"{name}.log"
    tail = "\n  ".join(_tail(log)) or "(its log is empty)"
    return f"{name} is {state.state}: {state.description}\n  {tail}\nall of it: {log}"


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
            return [line for line, _ in itertools.groupby(lines)][-LOG_TAIL_LINES:]
    except OSError:
        return []


def _welcome(settings: Settings, chosen: tuple[Program, ...], took_s: float) -> None:
    family = Supervisord(settings).family()
    listening = sorted({(who.kind, who.address, who.port) for who in listeners() if who.pid in family})
    by_address: dict[str, list[str]] = {}
    for kind, address, port in listening:
        by_address.setdefault(address, []).append(f"{port}/{kind}")
    console.print(f"[bold]The box is up[/bold] ({took_s:.0f} s). It listens on")
    for address, held in by_address.items():
        console.print(f"  {address}: {' '.join(held)}")
    console.print(f"Open [bold]{settings.page_url}[/bold] and press Call.")
    if tls.is_self_signed(settings):
        console.print("The certificate is self-signed: the browser warns once; choose to go on to this address.")
    if settings.public_host:
        open_ports = [f"{settings.livekit_tcp_port}/tcp", f"{settings.livekit_udp_port}/udp"]
        door = settings.http_port if settings.tls_by_proxy else settings.https_port
        console.print(f"Callers need {door}/tcp, and for sound {' or '.join(open_ports)}, through any firewall.")
    else:
        console.print(f"It answers this machine only; {PREFIX}PUBLIC_HOST=<name or address> opens it to others.")
    console.print("Next: `callbox status`, `callbox doctor`, `callbox down`; each is in .venv/bin.")
