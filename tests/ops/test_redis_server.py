"""A run's own redis-server: it keeps what it was told, and says why when it cannot start."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from daemons.settings import ROOT
from ops.redis_server import RedisServer
from ops.run import StepFailed

pytestmark = pytest.mark.integration


async def test_it_keeps_what_it_was_told_when_it_is_killed(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with Redis.from_url(server.url) as client:
            assert (await client.config_get("appendfsync"))["appendfsync"] == "always"
            await client.set("word", "kept")
        server.kill()
        server.start()
        async with Redis.from_url(server.url) as client:
            assert await client.get("word") == b"kept"
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        _ = server.pid


def test_it_says_why_it_does_not_start(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    with socket.create_server(("127.0.0.1", server.port)), pytest.raises(StepFailed, match="Address already in use"):
        server.start()


def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    script = "import sys, pathlib; from ops.redis_server import RedisServer; " + (
        "server = RedisServer(pathlib.Path(sys.argv[1])); server.start(); print(server.pid, flush=True); input()"
    )
    command = (sys.executable, "-c", script, str(tmp_path))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as starter:
        assert starter.stdout is not None
        server = psutil.Process(int(starter.stdout.readline()))
        assert "redis-server" in server.name()
        starter.kill()
        server.wait(5)
