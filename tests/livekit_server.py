"""A real livekit-server for tests, on ports of its own."""

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from daemons import settings as settings_module
from ops import livekit
from ops.free_ports import free_port

START_S = 10.0


class LiveKitServer:
    """Makes no room by itself, as the box's own. `settings` are what a daemon needs to reach it."""

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

    def __enter__(self) -> Self:
        binary = livekit.find(settings_module.load())
        if binary is None:
            pytest.skip("livekit-server is not installed; `callbox up` installs it")
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
        self._process = subprocess.Popen([binary, "--config", path], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while not self._answers():
            assert self._process.poll() is None, "livekit-server ended at once"
            assert time.monotonic() < deadline, "livekit-server does not answer"
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.settings['livekit_port']}/", timeout=1) as answer:
                return bool(answer.read() == b"OK")
        except OSError:
            return False
