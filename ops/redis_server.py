"""A redis-server of a run's own, configured as the box's: on loopback, and on disk before anyone is told."""

import contextlib
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from ops.free_ports import free_port
from ops.programs import system_program
from ops.render import redis_conf
from ops.run import StepFailed

START_S = 10.0
POLL_S = 0.02


class RedisServer:
    """Runs while inside the context, keeps its data in `folder`, and may be killed and started again meanwhile.

    It ends with the thread that started it, also when that is killed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Raises ProcessLookupError when it is not running."""
        if self._process is None:
            raise ProcessLookupError("this redis-server does not run")
        return self._process.pid

    def start(self) -> None:
        """Return when it answers. Raises StepFailed with what it said when it does not."""
        conf, log = self._folder / "redis.conf", self._folder / "redis.log"
        conf.write_text(redis_conf(self.port, self._folder), encoding="utf-8")
        with log.open("ab") as file:
            command = ("setpriv", "--pdeathsig", "KILL", system_program("redis-server"), str(conf))
            self._process = subprocess.Popen(command, stdout=file, stderr=file)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                said = "\n  ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
                raise StepFailed(f"redis-server does not start on port {self.port}:\n  {said}")
            time.sleep(POLL_S)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()
