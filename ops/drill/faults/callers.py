"""Callers of one world: more of them than there is room for, so that slots change hands and the queue is in use.

They ask the registry as the token server does, which asks again until the agent has come, and hang up at random.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable

from daemons.errors import Unavailable
from daemons.registry import LEASE_TTL_MS, AcquireStatus, Registry

POLL_S = 0.4
AGENT_COMES_S = 8.0
CALL_S = (2.0, 20.0)
IMPATIENT_SHARE = 0.1  # leave the queue, half of them without a word
VANISH_S = 7.0  # a ticket lives for 6 s after its last poll
LOOK_BACK_S = 6.0


class Callers:
    """`is_held(call, fence)` tells whether an agent holds this call now; `hang_up(call, at_ns)` is told beforehand."""

    def __init__(
        self,
        registry: Registry,
        roles: tuple[str, ...],
        queue_max: int,
        *,
        is_held: Callable[[str, int], bool],
        hang_up: Callable[[str, int], None],
    ) -> None:
        self._registry = registry
        self._roles = roles
        self._queue_max = queue_max
        self._is_held = is_held
        self._hang_up = hang_up
        self._numbers = itertools.count(1)

    async def call_again_and_again(self) -> None:
        while True:
            call = f"call-{next(self._numbers)}"
            fence = await self._get_through(call)
            if fence is not None:
                await self._talk(call, fence)
            await asyncio.sleep(random.uniform(0, 2 * POLL_S))  # noqa: S311

    async def _get_through(self, call: str) -> int | None:
        """The fence under which an agent holds this call, None when nothing came of it."""
        impatient = random.random() < IMPATIENT_SHARE  # noqa: S311
        while True:
            try:
                answer = await self._registry.acquire(call, self._roles, LEASE_TTL_MS, self._queue_max)
                if answer.status is AcquireStatus.GRANTED and answer.fence is not None:
                    if await self._agent_comes(call, answer.fence):
                        return answer.fence
                    continue
                if answer.status is AcquireStatus.FULL:
                    return None
                if answer.status is AcquireStatus.QUEUED and impatient:
                    if random.random() < 0.5:  # noqa: S311
                        await self._registry.cancel(call)
                    await asyncio.sleep(VANISH_S)
                    return None
            except Unavailable:
                pass
            except _AgentAbsent:
                await self._give_up(call)
                return None
            await asyncio.sleep(POLL_S)

    async def _agent_comes(self, call: str, fence: int) -> bool:
        """False when the lease is gone meanwhile. Raises _AgentAbsent after AGENT_COMES_S."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + AGENT_COMES_S
        while not self._is_held(call, fence):
            if (await self._registry.lookup(call)).fence != fence:
                return False
            if loop.time() > deadline:
                raise _AgentAbsent
            await asyncio.sleep(POLL_S)
        return True

    async def _talk(self, call: str, fence: int) -> None:
        """Until somebody hangs up: we at our own time, or whoever ends it before."""
        loop = asyncio.get_running_loop()
        until = loop.time() + random.uniform(*CALL_S)  # noqa: S311
        while loop.time() < until and self._is_held(call, fence):  # noqa: ASYNC110 - a journal wakes nobody
            await asyncio.sleep(POLL_S)
        await self._give_up(call)
        await asyncio.sleep(LOOK_BACK_S * random.random())  # noqa: S311
        await self._give_up(call)  # a holder that was not told may have given it back

    async def _give_up(self, call: str) -> None:
        self._hang_up(call, time.monotonic_ns())
        while True:
            try:
                await self._registry.cancel(call)
                standing = await self._registry.lookup(call)
                if standing.fence is not None:
                    await self._registry.release(call, standing.fence)
                return
            except Unavailable:
                await asyncio.sleep(POLL_S)


class _AgentAbsent(Exception):
    """Nobody came to this call in time."""
