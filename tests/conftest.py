import os
import sys
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest
from redis.asyncio import Redis

from ops.redis_server import RedisServer

hypothesis.settings.register_profile("callbox", deadline=None)  # shared machines stall; the suite has its own time-outs
hypothesis.settings.load_profile("callbox")

_EXIT = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A redis-server that all tests share; `redis` empties it."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """An empty Redis."""
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
        yield client


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[_EXIT] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """LiveKit's native threads may call back into an interpreter that is being taken down, which aborts the process."""
    if "livekit.rtc" in sys.modules and _EXIT in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_EXIT])
