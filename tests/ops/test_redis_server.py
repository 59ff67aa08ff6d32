"""A run's own redis-server: it keeps what it was told, and says why when it cannot start."""

import os
import socket
from pathlib import Path

import pytest
from redis.asyncio import Redis

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
