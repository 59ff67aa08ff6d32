from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.registry.box import Box, Time


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
def box(redis: Redis) -> Box:
    return Box(redis, Time())
