import pytest
from redis.asyncio import Redis

from tests.registry.box import Box, Time


@pytest.fixture
def box(redis: Redis) -> Box:
    return Box(redis, Time())
