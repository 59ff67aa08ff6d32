"""supervisord's event listener: `python -m daemons.monitor.listener DAEMON...`, the programs that have health.

Its stdout is a protocol: one event in, one OK out. What it does at an event takes a few seconds at most, since
supervisord keeps a bounded number of events; what takes longer goes on at the next tick, each 5 s. It is no judge of
why a program ended: `recovery` decides what is done, and supervisord does it.
"""

import asyncio
import contextlib
import http.client
import json
import logging
import os
import socket
import sys
import time
import xmlrpc.client
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from supervisor import childutils
from supervisor.xmlrpc import Faults, SupervisorTransport

from daemons import settings as settings_module
from daemons.errors import EXIT_DO_NOT_RESTART, EXIT_NOTICED_S, ConfigurationError, in_words
from daemons.monitor.recovery import Change, Note, Order, Probe, Process, Program, judged
from daemons.registry import Registry, Snapshot, WorkerState, connect
from daemons.settings import Settings
from daemons.wire import ProgramEvent

log = logging.getLogger("listener")

PROBE_TIMEOUT_S = 1.0
REGISTRY_TIMEOUT_S = 3.0
SUPERVISORD_TIMEOUT_S = 10.0
LATE_S = 30.0
MAX_HEALTH_BYTES = 2**20
LOG_TAIL_BYTES, LOG_TAIL_LINES = 4096, 8
CHANGED = "PROCESS_STATE_"
VLLM = "vllm"  # loads for minutes, and may end at the end of that
WITH_ITS_LAST_WORDS = (ProgramEvent.FATAL, ProgramEvent.WANTS_NO_RESTART, ProgramEvent.CRASH_LOOP)

Answer = TypeVar("Answer")


class Listener:
    def __init__(self, settings: Settings, daemons: Sequence[str]) -> None:
        self._settings = settings
        self._health_ports = {name: int(getattr(settings, f"{name}_port")) + 1 for name in daemons}
        self._held_file = settings.var_dir / "run/held"  # what a listener holds must not stay down when it dies
        self._held = ""  # what stands there
        self._programs: dict[str, Program] = {}
        self._processes: dict[str, Process] = {}
        self._registry_answers = True
        self._is_late = True  # until a tick has shown that what is heard happens now
        self._shutting_down = False

    def begin(self) -> None:
        """Take over what the listener before this one held."""
        with contextlib.suppress(OSError):
            self._held = self._held_file.read_text(encoding="utf-8")
        held = self._held.split()
        for info in self._supervisord("getAllProcessInfo"):
            if info["name"] in held and info["statename"] == "STOPPED":
                self._program(info["name"]).held_before(time.monotonic())
        self._keep_held()
        log.info("listening; daemons watched: %s", " ".join(self._health_ports) or "none")

    def heard(self, headers: Mapping[str, str], fields: Mapping[str, str]) -> None:
        """Act on one event of supervisord."""
        event = headers["eventname"]
        if event == "SUPERVISOR_STATE_CHANGE_STOPPING":
            self._shutting_down = True
        if self._shutting_down:
            return
        if event.startswith("TICK"):
            self._is_late = time.time() - int(fields["when"]) > LATE_S
            if not self._is_late:
                self._tick()
        elif event.startswith(CHANGED) and fields["groupname"] != headers["pool"]:
            name, program = fields["processname"], self._program(fields["processname"])
            change = Change(event.removeprefix(CHANGED), fields["from_state"], fields.get("expected") == "1")
            if change.to == "RUNNING" and not program.held:
                log.info("%s runs, process %s", name, fields["pid"])
            elif change.to in ("EXITED", "BACKOFF") and not change.expected and not program.held:
                log.info("%s ended unexpectedly", name)
            # supervisord keeps what happened while the listener was away; only what happens now makes a crash loop.
            if change.to != "EXITED" or change.expected or not self._is_late:
                self._carry_out(program, program.changed(change, time.monotonic()))
        self._keep_held()

    def _tick(self) -> None:
        infos = {info["name"]: info for info in self._supervisord("getAllProcessInfo")}
        for name, info in infos.items():
            program = self._program(name)
            self._carry_out(program, program.tick(info["statename"], time.monotonic()))
        running = {name: infos[name]["pid"] for name in self._health_ports if _runs(infos.get(name))}
        self._processes = {name: self._process(name, pid) for name, pid in running.items()}
        for name, probe in self._probes().items():
            self._look_after(name, self._processes[name], probe)

    # Programs that end

    def _carry_out(self, program: Program, decisions: Iterable[Note | Order]) -> None:
        for decision in decisions:
            if isinstance(decision, Note):
                self._tell(decision)
                continue
            method = "stopProcess" if decision is Order.HOLD else "startProcess"
            try:
                self._supervisord(method, program.name, False)
            except (OSError, xmlrpc.client.Error) as error:
                if getattr(error, "faultCode", None) == Faults.ALREADY_STARTED:
                    continue
                log.info("%s %s: %s", method, program.name, error)
                program.refused(decision, time.monotonic())
                return

    def _keep_held(self) -> None:
        held = " ".join(name for name, program in self._programs.items() if program.held)
        if held != self._held:
            self._held_file.write_text(held, encoding="utf-8")
            self._held = held

    # Daemons that hang

    def _probes(self) -> dict[str, Probe]:
        if not self._processes:
            return {}
        pool = ThreadPoolExecutor(len(self._processes))
        asked = {
            pool.submit(look, self._health_ports[name], process.pid): name for name, process in self._processes.items()
        }
        done, _ = wait(asked, 2 * PROBE_TIMEOUT_S)
        pool.shutdown(wait=False)
        late = Probe(problem="no answer at its health port", answered=False)
        return {name: future.result() if future in done else late for future, name in asked.items()}

    def _look_after(self, name: str, process: Process, seen: Probe) -> None:
        if process.is_stalled(seen, time.monotonic()):
            self._tell(Note(ProgramEvent.STALLED, {"program": name, "worker": seen.worker, "why": seen.problem}))
        if process.stalled_at_s is None:
            return
        signal = process.signal(lambda: self._is_waited_for(process.last), time.monotonic())
        now = self._supervisord("getProcessInfo", name)
        if signal is None or not _runs(now) or now["pid"] != process.pid:  # it ended meanwhile, or a person stops it
            return
        self._supervisord("signalProcess", name, signal)
        after_s = f"{time.monotonic() - process.stalled_at_s:.0f}"
        self._tell(Note(ProgramEvent.RESTARTED, {"program": name, "signal": f"SIG{signal}", "after_s": after_s}))

    def _is_waited_for(self, seen: Probe) -> bool:
        """Let the worker drain; whether agents still hold it, and may yet find another of its role."""
        if not seen.worker:
            return False

        async def drain(registry: Registry) -> Snapshot:
            await registry.drain(seen.worker, seen.boot)
            return await registry.snapshot()

        snapshot = self._ask_registry(drain)
        workers = snapshot.workers if snapshot else ()
        this = next((worker for worker in workers if (worker.worker, worker.boot) == (seen.worker, seen.boot)), None)
        if this is None or not this.leases:
            return False
        return any(
            worker.role == this.role and worker.state is WorkerState.AVAILABLE and not worker.busy for worker in workers
        )

    # Whom it speaks to

    def _tell(self, note: Note) -> None:
        log.warning("%s%s", note, self._last_words(note.fields["program"]) if note.kind in WITH_ITS_LAST_WORDS else "")
        self._ask_registry(lambda registry: registry.note(note.kind, note.fields))

    def _last_words(self, program: str) -> str:
        """Where its log is, and how it ends; lines that repeat are shown once."""
        try:
            path = Path(self._supervisord("getProcessInfo", program)["stdout_logfile"])
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
                text = file.read(LOG_TAIL_BYTES).decode(errors="replace")
        except (OSError, xmlrpc.client.Error) as error:
            return f" (its log cannot be read: {error})"
        lines = [line for line, _ in groupby(text.splitlines())][-LOG_TAIL_LINES:]
        return "\n    ".join([f"; the end of {path}:", *lines])

    def _ask_registry(self, ask: Callable[[Registry], Awaitable[Answer]]) -> Answer | None:
        """None when the registry does not answer: nothing here may depend on it."""

        async def once() -> Answer:
            registry = connect(self._settings.redis)
            try:
                async with asyncio.timeout(REGISTRY_TIMEOUT_S):
                    return await ask(registry)
            finally:
                await registry.close()

        try:
            answer = asyncio.run(once())
        except Exception as error:  # whatever it says: programs are restarted without it, too
            if self._registry_answers:
                log.warning("without the registry, so not in its audit log: %s", in_words(error))
            self._registry_answers = False
            return None
        self._registry_answers = True
        return answer

    def _supervisord(self, method: str, *arguments: object) -> Any:
        """Raises OSError or xmlrpc.client.Error."""
        transport = SupervisorTransport(None, None, f"unix://{self._settings.supervisord_socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        finally:
            transport.close()

    def _program(self, name: str) -> Program:
        load_s = self._settings.load_timeout_s if name == VLLM else 0.0
        return self._programs.setdefault(name, Program(name, load_s))

    def _process(self, name: str, pid: int) -> Process:
        known = self._processes.get(name)
        return known if known and known.pid == pid else Process(pid, time.monotonic())


def look(port: int, pid: int) -> Probe:
    """What health at this port says of the process, in a second or two; anything but an answer is silence."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return judged(json.loads(connection.getresponse().read(MAX_HEALTH_BYTES)), pid)
    except (OSError, http.client.HTTPException, ValueError, TypeError, LookupError) as error:
        return Probe(f"no answer at its health port ({in_words(error)})", answered=False)
    finally:
        connection.close()


def _runs(info: Mapping[str, Any] | None) -> bool:
    return info is not None and info["statename"] == "RUNNING"


def main(daemons: Sequence[str]) -> None:
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # a stray print would end the protocol for good
    socket.setdefaulttimeout(SUPERVISORD_TIMEOUT_S)
    settings = settings_module.load()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)-7s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    listener = Listener(settings, daemons)
    _survive(listener.begin)
    while True:
        try:
            headers, payload = childutils.listener.wait(sys.stdin, protocol)
        except (KeyError, ValueError):
            log.info("supervisord has closed the line; ending")
            return
        _survive(lambda: listener.heard(headers, childutils.get_headers(payload)))  # noqa: B023 - called at once
        childutils.listener.ok(protocol)


def _survive(step: Callable[[], None]) -> None:
    """Whatever becomes of one event, the next one is heard."""
    try:
        step()
    except Exception as error:
        expected = isinstance(error, OSError | xmlrpc.client.Error)
        log.error("%s: %s", type(error).__name__, error, exc_info=not expected)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        time.sleep(EXIT_NOTICED_S)
        sys.exit(EXIT_DO_NOT_RESTART)
