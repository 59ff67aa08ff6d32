"""What is wrong with this box, and how to mend it; also when nothing is running."""

import asyncio
import re
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from daemons.errors import CallboxError, ConfigurationError, Unavailable
from daemons.models import is_on_hub, is_path, model_folder
from daemons.registry import connect
from daemons.settings import PREFIX, Settings
from ops import livekit, models, page, ports, vram
from ops.kept import SECRETS, read
from ops.programs import Program, Readiness, probe_all, programs, system_program
from ops.progress import console
from ops.supervise import State, Supervisord

LITTLE_DISK_BYTES = 10**9
PYTHON = ((3, 11), (3, 13))


class Finding(NamedTuple):
    what: str
    verdict: Literal["ok", "note", "wrong"]
    text: str
    mend: str = ""


def examine(settings: Settings, *, checksums: bool = True) -> list[Finding]:
    """Every check, each on its own: one that fails hides no other."""
    findings: list[Finding] = []
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("versions", lambda: _versions(settings)),
        ("redis", lambda: _redis(settings)),
        ("disk", lambda: _disk(settings)),
        ("network", _network),
        ("secrets", lambda: _secrets(settings)),
        ("graphics cards", lambda: _cards(settings)),
        ("models", lambda: _models(settings, checksums)),
        ("page", lambda: _page(settings)),
        ("ports", lambda: _ports(settings)),
        ("programs", lambda: _programs(settings)),
    )
    for what, check in checks:
        try:
            findings += check()
        except ConfigurationError as error:
            findings.append(Finding(what, "wrong", str(error), "correct that, then run `callbox up`"))
        except (CallboxError, OSError) as error:
            findings.append(Finding(what, "wrong", str(error), "see var/log"))
    return findings


def show(findings: list[Finding]) -> None:
    marks = {"ok": "[green]ok[/green]   ", "note": "[yellow]note[/yellow] ", "wrong": "[red]WRONG[/red]"}
    for finding in findings:
        console.print(f"{marks[finding.verdict]} {finding.what}: ", end="")
        console.print(finding.text, markup=False)
        if finding.mend:
            console.print(f"      → {finding.mend}", markup=False)


def _versions(settings: Settings) -> Iterator[Finding]:
    lowest, beyond = PYTHON
    fits = lowest <= sys.version_info[:2] < beyond
    yield Finding(
        "python",
        "ok" if fits else "wrong",
        f"{sys.version.split()[0]}, callbox {version('callbox')}",
        "" if fits else "run `bash post_start.sh`: it makes .venv anew",
    )
    for name, argument in (("redis-server", "--version"), ("nginx", "-v")):
        if name == "redis-server" and settings.redis_url:
            continue
        binary = system_program(name)
        said = subprocess.run((binary, argument), capture_output=True, text=True, timeout=20, check=False)
        found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
        yield Finding(name, "ok", f"{found[0] if found else '?'} ({binary})")
    binary_path = livekit.find(settings)
    if binary_path is None:
        yield Finding("livekit-server", "wrong", "not installed", "run `callbox up`")
        return
    found_version = livekit.version(binary_path)
    tried = found_version == livekit.VERSION
    yield Finding(
        "livekit-server",
        "ok" if tried else "note",
        f"{found_version} ({binary_path})",
        "" if tried else f"Callbox is tested with {livekit.VERSION}; take this one off PATH to have it installed",
    )


def _redis(settings: Settings) -> Iterator[Finding]:
    """A Redis elsewhere; the box's own is one of its programs."""
    if not settings.redis_url:
        return
    address = re.sub(r"//[^/]*@", "//", settings.redis_url)

    async def ask() -> None:
        registry = connect(settings.redis_url)
        try:
            await registry.snapshot()
        finally:
            await registry.close()

    try:
        asyncio.run(ask())
    except Unavailable as error:
        yield Finding("redis", "wrong", f"{address}: {error}", f"have it started, or correct {PREFIX}REDIS_URL")
    else:
        yield Finding("redis", "ok", f"answers at {address}")


def _disk(settings: Settings) -> Iterator[Finding]:
    for what, folder, without in (
        ("data", settings.var_dir / "redis", "Redis cannot write and stops"),
        ("logs", settings.var_dir / "log", "calls go on, but nobody can read why one failed"),
        ("models", settings.models_dir, "no further model can be fetched"),
    ):
        there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        free_bytes = shutil.disk_usage(there).free
        enough = free_bytes >= LITTLE_DISK_BYTES
        yield Finding(
            f"disk for {what}",
            "ok" if enough else "wrong",
            f"{free_bytes / 1e9:.1f} GB free at {there}",
            "" if enough else f"make room: without it {without}",
        )


def _network() -> Iterator[Finding]:
    """The agent's WebRTC library offers no loopback address, so it needs another, though nothing is sent by it."""
    inet = {socket.AF_INET, socket.AF_INET6}
    if any(one.family in inet for name, found in psutil.net_if_addrs().items() if name != "lo" for one in found):
        yield Finding("network", "ok", "an interface beside loopback has an address", "")
    else:
        mend = "join any network, cable or Wi-Fi; one that leads nowhere will do"
        yield Finding("network", "wrong", "loopback is the only interface with an address: calls cannot begin", mend)


def _secrets(settings: Settings) -> Iterator[Finding]:
    for path in (settings.var_dir / "secrets.env", settings.var_dir / "callbox.env"):
        if not path.exists():
            if path.name == "secrets.env":
                yield Finding("secrets", "note", f"{path} is not made yet", "run `callbox up`")
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        private = not mode & 0o077
        mend = "" if private else f"chmod 600 {path}"
        yield Finding(path.name, "ok" if private else "wrong", f"mode {mode:03o}", mend)
        if path.name == "secrets.env" and (gone := [name for name in SECRETS if not read(path).get(name)]):
            yield Finding("secrets", "wrong", f"{path} lacks {', '.join(gone)}", "run `callbox up`: it makes them")


def _models(settings: Settings, checksums: bool) -> Iterator[Finding]:
    known = models.known(settings)
    for name in models.needed(settings):
        if name not in known and is_on_hub(name):
            yield Finding(f"model {name}", "wrong", "not fetched yet", f"run `callbox models pull {name}`")
            continue
        if name not in known:
            there = ", ".join(known)
            yield Finding(f"model {name}", "wrong", "not in etc/models.toml", f"name one of {there}, or give a path")
            continue
        model, folder = known[name], model_folder(settings, name)
        if gone := models.missing(settings, name, model):
            names = ", ".join(file.name for file in gone)
            yield Finding(f"model {name}", "wrong", f"{names} missing in {folder}", f"run `callbox models pull {name}`")
        elif checksums and (bad := models.damaged(settings, name, model)):
            paths = " ".join(str(folder / file.name) for file in bad)
            mend = f"rm {paths}; callbox models pull {name}"
            yield Finding(f"model {name}", "wrong", f"wrong checksum: {', '.join(file.name for file in bad)}", mend)
        else:
            yield Finding(f"model {name}", "ok", f"{model.size_bytes / 1e6:.0f} MB, {model.licence}")
    for setting, chosen in models.used(settings).items():
        if is_path(chosen) and not Path(chosen).expanduser().exists():
            yield Finding(f"model {chosen}", "wrong", "no such path", f"correct {PREFIX}{setting.upper()}")


def _cards(settings: Settings) -> Iterator[Finding]:
    for budget in vram.check(settings, in_use=Supervisord(settings).pid() is None):
        yield Finding("graphics cards", "ok", str(budget))


def _page(settings: Settings) -> Iterator[Finding]:
    index = page.www_dir(settings) / "index.html"
    if index.exists():
        yield Finding("page", "ok", str(index.parent))
    else:
        yield Finding("page", "wrong", f"{index} is missing", "run `callbox up`: it builds the page")


def _ports(settings: Settings) -> Iterator[Finding]:
    chosen = programs(settings)
    stuck = list(ports.taken(settings, chosen, Supervisord(settings).family()))
    for sentence in stuck:
        text, _, mend = sentence.partition("; ")
        yield Finding("ports", "wrong", text, mend)
    if not stuck:
        yield Finding("ports", "ok", "none is held by anyone else")


def _programs(settings: Settings) -> Iterator[Finding]:
    supervisord = Supervisord(settings)
    if supervisord.pid() is None:
        yield Finding("supervisord", "wrong", "not running", "run `callbox up`")
        return
    states = {state.name: state for state in supervisord.states()}
    chosen = programs(settings)
    answers = asyncio.run(probe_all(settings, chosen))
    held = supervisord.held()
    for program in chosen:
        yield _program(settings, program, states.get(program.name), answers[program.name], program.name in held)


def _program(settings: Settings, program: Program, state: State | None, answer: Readiness, is_held: bool) -> Finding:
    log = settings.var_dir / "log" / f"{program.name}.log"
    if state is None:
        return Finding(program.name, "wrong", "supervisord does not know it", "run `callbox up`")
    if state.state != "RUNNING":
        mend = f"read {log}; then `callbox restart {program.name}`"
        said = f"{state.state}: {state.description}"
        if is_held and state.state == "STOPPED":
            said = "in a crash loop: the listener holds it back and starts it again within a minute"
        elif state.state == "FATAL":
            said += "; the listener starts it again now and then"
        return Finding(program.name, "wrong", said, mend)
    if not answer.ready:
        mend = f"wait if it is loading; else read {log}, and `callbox restart {program.name}`"
        return Finding(program.name, "wrong", f"running, not ready: {answer.why_not}", mend)
    return Finding(program.name, "ok", f"ready, {state.description}")
