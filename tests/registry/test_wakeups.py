"""Who is told at once that something about its leases has changed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from daemons.registry import connect
from tests.registry.box import Box

pytestmark = pytest.mark.integration


async def drain(box: Box) -> None:
    await box.registry.drain("t:1", box.boot("t:1"))


async def deregister(box: Box) -> None:
    await box.registry.deregister("t:1", box.boot("t:1"))


async def restart(box: Box) -> None:
    await box.registry.register("t:1", "another boot", "tts", "http://t:1", 1)


@pytest.mark.parametrize("end", [drain, deregister, restart])
async def test_an_agent_hears_at_once_that_a_member_must_be_replaced(
    box: Box, redis_url: str, end: Callable[[Box], Awaitable[None]]
) -> None:
    await box.up("a:1", "agent")
    await box.up("t:1", "tts")
    listener = connect(redis_url)
    async with listener.wakeups("a:1") as wakeups, asyncio.timeout(2):
        await anext(wakeups)
        await box.grant("c", "agent", "tts")
        await anext(wakeups)
        await end(box)
        await anext(wakeups)
    await listener.close()
