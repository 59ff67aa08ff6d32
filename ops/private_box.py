"""A whole box of its own for tests, benches and drills, brought up and down by the command that people use."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer

from daemons import settings as settings_module
from daemons.settings import ROOT, Settings
from ops.free_ports import free_pair, free_port
from ops.run import StepFailed
from ops.supervise import Supervisord

Model = Annotated[str, typer.Option(help="A name in etc/models.toml, or a path; the box's own when not given.")]

UP_S = 300
READY_S = 60.0
CALLBOX = Path(sys.executable).with_name("callbox")


class PrivateBox:
    """Up inside the context. Its programs run under a supervisord of its own, on free ports.

    `prefix` comes before each command: what runs the box somewhere else.
    """

    def __init__(self, *, prefix: Sequence[str] = (), **changes: object) -> None:
        self._prefix = prefix
        self._folder = tempfile.TemporaryDirectory(prefix="callbox-")  # short enough for a Unix socket
        self.var_dir = Path(self._folder.name)
        self.var_dir.chmod(0o755)  # nginx's workers are another user's when root runs this
        self.persona = self.var_dir / "persona.toml"
        self.write_persona()
        single = ("http", "https", "redis", "livekit", "livekit_udp", "livekit_tcp")
        paired = ("stt", "llm", "tts", "agent", "token", "monitor")
        given: dict[str, object] = {
            "var_dir": self.var_dir,
            "www_dir": self.var_dir / "www",
            "persona": self.persona,
            **{f"{name}_port": free_port() for name in single},
            **{f"{name}_port": free_pair() for name in paired},
            **changes,
        }
        self.environment = {
            **settings_module.environment_without_settings(),
            **{f"{settings_module.PREFIX}{name.upper()}": str(value) for name, value in given.items()},
        }

    def __enter__(self) -> Self:
        try:
            self.callbox("up", timeout_s=UP_S)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.settings = self._settings()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            self.callbox("down", timeout_s=UP_S)
        except BaseException:
            self._end_at_once()  # a second Ctrl-C: nothing may be left running, however it ends
            raise
        finally:
            self._folder.cleanup()

    def _end_at_once(self) -> None:
        supervisord = Supervisord(self._settings())
        if (pid := supervisord.pid()) is not None:
            os.kill(pid, signal.SIGKILL)
        supervisord.end_strays()

    def write_persona(self, **changes: object) -> None:
        """The installed persona, without the chance in what it says; its values (by key) changed as given."""
        text = (ROOT / "etc/persona.toml").read_text(encoding="utf-8")
        for name, value in {"temperature": 0.0, **changes}.items():
            text, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
            if found != 1:
                raise StepFailed(f"etc/persona.toml has {found} lines for {name}")
        self.persona.write_text(text, encoding="utf-8")

    def callbox(self, *words: str, timeout_s: float = 120, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `callbox WORDS` against this box."""
        done = subprocess.run(
            [*self._prefix, CALLBOX, *words],
            env=self.environment,
            cwd=ROOT,
            timeout=timeout_s,
            text=True,
            capture_output=True,
            check=False,
        )
        if check and done.returncode:
            raise StepFailed(f"callbox {' '.join(words)} exited {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def supervisorctl(self, *words: str) -> str:
        config = self.var_dir / "etc/supervisord.conf"
        command: list[str | Path] = [CALLBOX.with_name("supervisorctl"), "-c", config, *words]
        done = subprocess.run(command, timeout=120, text=True, capture_output=True, check=False)
        return done.stdout

    def pid(self, program: str) -> int:
        return int(self.supervisorctl("pid", program))

    def status(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.callbox("status", "--json", "-", check=False).stdout)
        return read

    def log(self, program: str) -> str:
        return (self.var_dir / "log" / f"{program}.log").read_text(encoding="utf-8", errors="replace")

    def _settings(self) -> Settings:
        before = dict(os.environ)
        os.environ.update(self.environment)
        try:
            return settings_module.load()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def wait_ready(self, program: str, other_than: int) -> float:
        """Seconds until this program is ready again under another process id."""
        began = time.monotonic()
        while time.monotonic() - began < READY_S:
            found = next((one for one in self.status()["programs"] if one["name"] == program), None)
            if found and found["ready"] and self.pid(program) != other_than:
                return time.monotonic() - began
            time.sleep(0.2)
        raise StepFailed(f"{program} was not ready again within {READY_S} s:\n{self.log(program)[-2000:]}")
