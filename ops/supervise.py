"""Talking with this box's supervisord over its Unix socket."""

import contextlib
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from daemons.errors import Unavailable
from daemons.settings import PREFIX, ROOT, Settings, environment_without_settings
from ops.run import StepFailed

START_TIMEOUT_S = 15.0
SHUTDOWN_TIMEOUT_S = 30.0
STRAY_TIMEOUT_S = 10.0
WRITE_OVER_THEIR_ENVIRONMENT = ("redis-server", "nginx", "VLLM::")  # with their titles, which begin so
BOX_VARIABLE = f"{PREFIX}VAR_DIR"  # in the environment of every program of a box


class State(NamedTuple):
    """One program in supervisord's eyes."""

    name: str
    state: str  # STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL
    pid: int
    exit_status: int
    description: str


class Supervisord:
    """One box's supervisord, running or not."""

    def __init__(self, settings: Settings) -> None:
        self._var_dir = settings.var_dir.resolve()
        self._socket = settings.supervisord_socket

    @property
    def conf(self) -> Path:
        return self._var_dir / "etc/supervisord.conf"

    @property
    def log(self) -> Path:
        return self._var_dir / "log/supervisord.log"

    def pid(self) -> int | None:
        """None when it does not run."""
        try:
            return int(self._call("getPID"))
        except Unavailable:
            return None

    def start(self) -> None:
        """Start supervisord, which starts its programs. Raises StepFailed."""
        command = (str(Path(sys.executable).with_name("supervisord")), "-c", str(self.conf))
        # Programs read the kept settings: what this shell happens to hold must not outlive it in supervisord.
        environment = environment_without_settings()
        environment.pop("CUDA_VISIBLE_DEVICES", None)  # cards are settings, too
        said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if said.returncode:
            raise StepFailed(f"supervisord does not start: {said.stderr.strip()[-600:]}\nits log: {self.log}")
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.pid() is None:
            if time.monotonic() > deadline:
                raise StepFailed(f"supervisord does not answer after {START_TIMEOUT_S:g} s; its log: {self.log}")
            time.sleep(0.1)

    def apply(self, stop_order: Iterable[str]) -> list[str]:
        """Bring the programs to what the configuration says; those that are the same are not touched.

        Returns what was done, in words.
        """
        ((added, changed, removed),) = self._call("reloadConfig")
        done = []
        for name in [name for name in stop_order if name in {*changed, *removed}]:
            self._call("stopProcessGroup", name)
            self._call("removeProcessGroup", name)
            done.append(f"{name} stopped" if name in removed else f"{name} restarted")
        for name in [*added, *changed]:
            self._call("addProcessGroup", name)
        done += [f"{name} started" for name in added]
        for state in self.states():
            if state.state in {"STOPPED", "EXITED", "FATAL"}:
                self._start(state.name)
                done.append(f"{state.name} started")
        return done

    def states(self) -> list[State]:
        """Raises Unavailable when supervisord does not answer."""
        return [
            State(info["name"], info["statename"], info["pid"], info["exitstatus"], info["description"])
            for info in self._call("getAllProcessInfo")
        ]

    def stop(self, name: str) -> None:
        """Stop one program and wait until it is down."""
        with contextlib.suppress(StepFailed):  # it was down already
            self._call("stopProcess", name, True)

    def restart(self, name: str) -> None:
        self.stop(name)
        self._start(name)

    def held(self) -> set[str]:
        """The programs that the listener holds back, for they are in a crash loop."""
        try:
            return set((self._var_dir / "run/held").read_text(encoding="utf-8").split())
        except OSError:
            return set()

    def shut_down(self) -> None:
        """End supervisord with whatever it still runs. Raises StepFailed when it stays."""
        pid = self.pid()
        if pid is None:
            return
        self._call("shutdown")
        try:
            psutil.Process(pid).wait(SHUTDOWN_TIMEOUT_S)
        except psutil.NoSuchProcess:
            return
        except psutil.TimeoutExpired as error:
            raise StepFailed(f"supervisord (process {pid}) is still there after {SHUTDOWN_TIMEOUT_S:g} s") from error

    def family(self) -> set[int]:
        """The ids of supervisord and everything below it."""
        pid = self.pid()
        if pid is None:
            return set()
        with contextlib.suppress(psutil.NoSuchProcess):
            return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
        return set()

    def end_strays(self) -> list[int]:
        """End the programs that a supervisord left which was killed; returns their process ids."""
        strays = [process for process in psutil.process_iter() if self._is_a_stray(process)]
        for stray in strays:
            with contextlib.suppress(psutil.NoSuchProcess):
                stray.terminate()
        _, stubborn = psutil.wait_procs(strays, STRAY_TIMEOUT_S)
        for stray in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                stray.kill()
        return [stray.pid for stray in strays]

    def _start(self, name: str) -> None:
        try:
            self._call("startProcess", name, False)
        except StepFailed as failure:  # the listener was quicker
            if getattr(failure.__cause__, "faultCode", None) != Faults.ALREADY_STARTED:
                raise

    def _is_a_stray(self, process: psutil.Process) -> bool:
        try:
            if process.name().startswith(WRITE_OVER_THEIR_ENVIRONMENT):
                return Path(process.cwd()).is_relative_to(self._var_dir)
            environment = process.environ()
        except (psutil.Error, OSError):
            return False
        return "SUPERVISOR_ENABLED" in environment and environment.get(BOX_VARIABLE) == str(self._var_dir)

    def _call(self, method: str, *arguments: object) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            words = " ".join(str(word) for word in arguments)
            raise StepFailed(f"supervisord, asked to {method} {words}: {fault.faultString}") from fault
        except (OSError, xmlrpc.client.Error) as error:
            raise Unavailable(f"supervisord does not answer at {self._socket}: {error}") from error
        finally:
            transport.close()
