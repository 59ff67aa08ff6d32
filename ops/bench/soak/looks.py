"""What the programs of a box hold while it holds no call."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from redis.asyncio import Redis

from daemons.registry import Registry, connect, keys
from daemons.settings import Settings
from ops.footprint import Footprint
from ops.metrics import Metrics, metrics_at
from ops.programs import DAEMONS, processes_of

OVER_S = 20.0  # after a hang-up
FRESH_S = 1.2  # by then a daemon has written its metrics again
POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Look:
    """By program; the children that answer for the daemons' health are counted together.

    `malloc_bytes` and `python_blocks` are what a daemon has in use: a small leak shows there at once, and in the size
    of its process only when the room is filled that was free before. `redis_bytes` are those of its data, without the
    audit log, which keeps its last 10,000 entries.
    """

    footprints: Mapping[str, Footprint]
    tasks: Mapping[str, int]
    malloc_bytes: Mapping[str, float]
    python_blocks: Mapping[str, float]
    redis_connections: int
    redis_keys: int
    redis_bytes: int
    traces: int


class Watch:
    """Looks at one box from outside."""

    def __init__(self, settings: Settings, http: aiohttp.ClientSession, registry: Registry, redis: Redis) -> None:
        self._settings = settings
        self._http = http
        self._registry = registry
        self._redis = redis
        self._processes = processes_of(settings)
        self._ended_before = 0.0

    @classmethod
    @asynccontextmanager
    async def on(cls, settings: Settings) -> AsyncIterator["Watch"]:
        registry, redis = connect(settings.redis), Redis.from_url(settings.redis)
        try:
            async with aiohttp.ClientSession() as http:
                watch = cls(settings, http, registry, redis)
                await asyncio.sleep(FRESH_S)
                watch._ended_before = _ended(await watch._metrics("agent"))
                yield watch
        finally:
            await registry.close()
            await redis.aclose()

    async def look(self) -> Look:
        """Raises psutil.NoSuchProcess when a program has ended since the watch began."""
        await asyncio.sleep(FRESH_S)
        metrics = {daemon: await self._metrics(daemon) for daemon in DAEMONS}
        memory = await self._redis.info("memory")
        log_bytes = await self._redis.memory_usage(keys.EVENTS, samples=0) or 0
        redis_port = self._settings.redis_port
        return Look(
            footprints={
                program: Footprint.of(processes, without_ports=(redis_port,))
                for program, processes in self._processes.items()
            },
            tasks={daemon: int(said["callbox_tasks", ()]) for daemon, said in metrics.items()},
            malloc_bytes={daemon: said["callbox_malloc_used_bytes", ()] for daemon, said in metrics.items()},
            python_blocks={daemon: said["callbox_python_blocks", ()] for daemon, said in metrics.items()},
            redis_connections=(await self._redis.info("clients"))["connected_clients"],
            redis_keys=await self._redis.dbsize(),
            redis_bytes=memory["used_memory_dataset"] - log_bytes,
            traces=sum(1 for _ in (self._settings.var_dir / "traces").iterdir()),
        )

    async def until_over(self, calls: int) -> str:
        """Return "" when `calls` calls have ended since the watch began and nothing is held; after OVER_S what is."""
        deadline = time.monotonic() + OVER_S
        while held := await self._held(calls):
            if time.monotonic() > deadline:
                return held
            await asyncio.sleep(POLL_S)
        return ""

    async def _held(self, calls: int) -> str:
        if held := (await self._registry.snapshot()).calls:
            return f"the registry holds {', '.join(call.call for call in held)}"
        agent = await self._metrics("agent")
        if at_once := agent["callbox_calls", ()]:
            return f"the agent holds {at_once:.0f} calls"
        if (ended := _ended(agent) - self._ended_before) != calls:
            return f"the agent has ended {ended:.0f} calls of {calls}"
        for role in ("stt", "llm", "tts"):
            if places := (await self._metrics(role))["callbox_requests_open", ("call",)]:
                return f"{places:.0f} requests of calls are open at the {role} worker"
        return ""

    async def _metrics(self, daemon: str) -> Metrics:
        return await metrics_at(self._http, f"http://127.0.0.1:{getattr(self._settings, f'{daemon}_port') + 1}")


def _ended(agent: Metrics) -> float:
    """How many calls, for whatever reason."""
    return sum(count for (name, _), count in agent.items() if name == "callbox_calls_ended_total")
