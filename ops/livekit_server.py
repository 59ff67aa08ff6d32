"""A livekit-server of a run's own, without a box around it."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from daemons import settings as settings_module
from ops import livekit
from ops.free_ports import free_port
from ops.run import StepFailed

START_S = 10.0


class LiveKitServer:
    """Runs while inside the context, and makes no room by itself, as the box's own.

    `settings` are what a daemon needs to reach it. It ends with the thread that started it, also when that is killed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.settings: dict[str, Any] = {
            "livekit_port": free_port(),
            "livekit_udp_port": free_port(),
            "livekit_tcp_port": free_port(),
            "livekit_api_key": "callbox",
            "livekit_api_secret": "a secret of at least 32 characters",
        }

    def pause(self) -> None:
        """It answers nobody, and closes no connection."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        """Raises StepFailed when there is no server that answers."""
        binary = livekit.find(settings_module.load())
        if binary is None:
            raise StepFailed("livekit-server is not installed; `callbox up` installs it")
        given = self.settings
        config = {
            "port": given["livekit_port"],
            "bind_addresses": ["127.0.0.1"],
            "rtc": {
                "udp_port": given["livekit_udp_port"],
                "tcp_port": 0,
                "node_ip": "127.0.0.1",
                "enable_loopback_candidate": True,
                "stun_servers": ["127.0.0.1:1"],
            },
            "room": {"auto_create": False},
            "keys": {given["livekit_api_key"]: given["livekit_api_secret"]},
            "logging": {"level": "error"},
        }
        path = self._folder / "livekit.json"  # JSON is YAML too
        path.write_text(json.dumps(config))
        command = ("setpriv", "--pdeathsig", "KILL", binary, "--config", path)
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise StepFailed("livekit-server does not start")
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.settings['livekit_port']}/", timeout=1) as answer:
                return bool(answer.read() == b"OK")
        except OSError:
            return False
