from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A redis-server that all tests share; whoever uses it flushes it first."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server.url
