from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from redis.asyncio import Redis

from ops.livekit_server import LiveKitServer
from tests.token.box import Box, box_settings

MakeBox = Callable[..., AbstractAsyncContextManager[Box]]


@pytest.fixture(scope="session")
def livekit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKitServer]:
    with LiveKitServer(tmp_path_factory.mktemp("livekit")) as server:
        yield server


@pytest.fixture
def make_box(redis_url: str, redis: Redis, livekit: LiveKitServer) -> MakeBox:
    """A box without workers."""

    def make(**changes: Any) -> AbstractAsyncContextManager[Box]:
        return Box(box_settings(changes.pop("redis_url", redis_url), livekit.settings, **changes)).up()

    return make


@pytest.fixture
async def box(make_box: MakeBox) -> AsyncIterator[Box]:
    """A box for one call at once, where two may wait."""
    async with make_box(queue_max=2) as box:
        await box.add_workers("stt", "llm", "tts")
        await box.start_agent()
        yield box
