"""Many clients at once: what they were answered, put in the order of the registry's sequence, is one client's story.

Each script returns its place in that sequence. In this order the model must give the same answers, and the order must
respect real time: who was answered before another asked stands before it (linearizability, with the order known).

Clients say themselves what time it is, and each operation keeps the time that it said: the server's own TIME is not in
its answer, so a replay could not repeat it. Clients' clocks move in leaps and reach the server out of order, which is
harder on the scripts than one server's clock.
"""

import asyncio
import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from daemons.errors import Unavailable
from daemons.registry import Registry
from ops.drill.registry.clients import Fault, Op, Traffic
from ops.drill.registry.model import RegistryModel
from ops.drill.registry.sides import START_MS, Diverged, Expectation, ask
from ops.drill.registry.story import Failed, Story
from ops.drill.registry.tally import Tally

FAULTS = {Fault.FORGET_SCRIPTS: 0.1}  # those that leave the sequence whole
TIMEOUT_S = 30.0


class OutOfOrder(Exception):
    """The sequence does not respect real time, or names one place twice."""


@dataclass(frozen=True, order=True)
class Done:
    """An operation from the moment when it was asked for to that of its answer, by the monotonic clock."""

    seq: int
    asked_ns: int = field(compare=False)
    answered_ns: int = field(compare=False)
    now_ms: int = field(compare=False)
    op: Op = field(compare=False)
    answer: Any = field(compare=False)


class Replay:
    """Takes operations as they were answered and plays them to the model in the order of their sequence."""

    def __init__(self) -> None:
        self._now_ms = START_MS
        self._expectation = Expectation(RegistryModel(lambda: self._now_ms))
        self._early: list[Done] = []  # answered, while one with a lower number is not yet
        self._asked_ns = 0  # when the last one asked of all that were played
        self._story = Story()
        self.played = 0

    def add(self, done: Done) -> None:
        """Raises Failed."""
        heapq.heappush(self._early, done)
        while self._early and self._early[0].seq <= self.played + 1:
            self._play(heapq.heappop(self._early))

    def finish(self) -> None:
        """Raises Failed when a place in the sequence is nobody's."""
        if self._early:
            raise Failed(f"nobody was told #{self.played + 1}, but somebody was told #{self._early[0].seq}")

    def _play(self, done: Done) -> None:
        self._story.ask(done.seq, done.now_ms, done.op)
        self._story.answered(done.answer)
        try:
            self._check(done)
        except (Diverged, OutOfOrder) as error:
            raise self._story.failed(error) from error
        self.played += 1

    def _check(self, done: Done) -> None:
        if done.seq != self.played + 1:
            raise OutOfOrder(f"two were told #{done.seq}")
        if done.answered_ns < self._asked_ns:
            raise OutOfOrder(f"#{done.seq} {done.op} had its answer before an operation with a lower number was asked")
        self._asked_ns = max(self._asked_ns, done.asked_ns)
        self._now_ms = done.now_ms
        self._expectation.check(self._expectation.of(done.op), done.seq, done.answer)


class Client:
    """One connection, one operation at a time."""

    def __init__(self, url: str, traffic: Traffic, clock: "SharedClock") -> None:
        self._redis = Redis.from_url(url, socket_timeout=TIMEOUT_S, single_connection_client=True)
        self._registry = Registry(self._redis, now_ms=self._now)
        self._traffic = traffic
        self._clock = clock
        self._said_ms = START_MS

    def _now(self) -> int:
        self._said_ms = self._clock.now_ms
        return self._said_ms

    async def do(self, op: Op) -> Done | None:
        if op.name == Fault.FORGET_SCRIPTS:
            try:
                await self._redis.script_flush()
            except RedisError as error:
                raise Failed(f"{op}: {error}") from error
            return None
        asked_ns = time.monotonic_ns()
        try:
            answer = await ask(self._registry, op)
        except Unavailable as error:
            raise Failed(f"{op}: {error}") from error
        answered_ns = time.monotonic_ns()
        self._traffic.learn(op, answer)
        return Done(self._registry.seq, asked_ns, answered_ns, self._said_ms, op, answer)

    async def close(self) -> None:
        await self._redis.aclose()


class SharedClock:
    def __init__(self) -> None:
        self.now_ms = START_MS


async def many(url: str, clients: int, ops: int, seed: int, tally: Tally, on_done: Callable[[int], None]) -> None:
    """Empty the Redis; so many clients at once do `ops` operations between them. Raises Failed."""
    traffic = Traffic(random.Random(seed), FAULTS)  # noqa: S311 - to be repeated by its seed
    replay, clock, left = Replay(), SharedClock(), ops

    async def work(client: Client) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            op = traffic.next()
            clock.now_ms += traffic.gap_ms()
            done = await client.do(op)
            if done is not None:
                replay.add(done)
            tally.count(op, done and done.answer)
            on_done(1)

    async with Redis.from_url(url) as redis:
        await redis.flushall()
    everyone = [Client(url, traffic, clock) for _ in range(clients)]
    failed: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            for client in everyone:
                group.create_task(work(client))
    except* Failed as failures:
        failed = failures.exceptions[0]
    finally:
        for client in everyone:
            await client.close()
    if failed is not None:  # raised in `except*`, some versions of Python make it one of a group
        raise failed
    replay.finish()
