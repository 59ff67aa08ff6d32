"""A real daemon, `python -m daemons.<role>`, on ports of its own."""

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from daemons import settings as settings_module
from daemons.settings import ROOT
from ops.free_ports import free_pair

READY_S = 60.0
END_S = 15.0
METRIC_S = 20.0


class WorkerProcess:
    """Ready for requests while inside the context; ended with SIGTERM after it. Its log is `log`.

    `module` is another program that lives as a daemon of this role.
    """

    def __init__(self, role: str, redis_url: str, folder: Path, *, module: str = "", **settings: object) -> None:
        self.role = role
        self._module = module or f"daemons.{role}"
        self.log = folder / f"{role}.log"
        self.port = free_pair()
        self.url = f"http://127.0.0.1:{self.port}"
        given = {
            "redis_url": redis_url,
            "var_dir": folder,
            "models_dir": settings_module.load().models_dir,
            f"{role}_port": self.port,
        }
        self._environment = {
            **settings_module.environment_without_settings(),
            **{f"CALLBOX_{name.upper()}": str(value) for name, value in {**given, **settings}.items()},
        }

    def start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self._module], env=self._environment, cwd=ROOT, stderr=log, stdout=log
            )
        return self._process

    def __enter__(self) -> Self:
        self.start()
        try:
            self._wait_until_ready()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, within_s: float) -> int:
        """The exit code of one that ends by itself. Raises TimeoutExpired."""
        return self._process.wait(within_s)

    def end(self) -> int:
        """SIGTERM, and its exit code."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(END_S)
        finally:
            self._process.kill()

    def health(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self._get("/health"))
        return facts

    def metric(self, name: str) -> float:
        """The sum over all labels of one sample name, as the health port shows it (up to a second old)."""
        lines = self._get("/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def metric_reaches(self, name: str, at_least: float) -> bool:
        """Whether a metric gets there within METRIC_S: it is published once a second."""
        deadline = time.monotonic() + METRIC_S
        while self.metric(name) < at_least:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def becomes_idle(self) -> bool:
        """Whether nothing is in flight within METRIC_S."""
        deadline = time.monotonic() + METRIC_S
        while self.health()["in_flight"]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while not self._ready():
            assert self._process.poll() is None, f"{self.role} ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"{self.role} is not ready: {self.log.read_text()}"
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            return self.health()["phase"] == "ready" and self._get("/readyz") is not None
        except OSError:
            return False

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port + 1}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text
