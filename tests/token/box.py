"""A token server beside a real registry and a real LiveKit; workers that do nothing; an agent that only comes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from livekit import rtc

from daemons import wire
from daemons.errors import EXIT_OK
from daemons.media import Rooms, join_token
from daemons.registry import AcquireStatus, CallState, Registry, connect
from daemons.runtime import Runtime
from daemons.settings import Settings
from daemons.token.server import TokenServer
from ops.free_ports import free_pair
from tests.waiting import until

AGENT_POLL_S = 0.03


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


class Agent:
    """Goes into the room of each call that is leased to it, after `delay_s`, and leaves when the lease is gone.

    Nothing here is cancelled: some time after a connect that was, LiveKit's client ends its own process.
    """

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self.delay_s = 0.0
        self.comes = True
        self._settings = settings
        self._registry = registry
        self._rooms = Rooms(settings)
        self._calls: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}
        self._stopping = False
        self._life: asyncio.Task[None] | None = None

    def start(self, boot: str) -> None:
        self._life = asyncio.create_task(self._live(boot))

    async def stop(self) -> None:
        self._stopping = True
        if self._life is not None:
            await self._life

    async def _live(self, boot: str) -> None:
        while not self._stopping:
            leased = {lease.call for lease in (await self._registry.heartbeat("agent", boot, ready=True)).leases}
            for call in leased - self._calls.keys() if self.comes else ():
                is_over = asyncio.Event()
                self._calls[call] = is_over, asyncio.create_task(self._attend(call, is_over))
            for call in self._calls.keys() - leased:
                self._calls[call][0].set()
            await asyncio.sleep(AGENT_POLL_S)
        for is_over, _ in self._calls.values():
            is_over.set()
        await asyncio.gather(*(attending for _, attending in self._calls.values()))
        await self._rooms.close()

    async def _attend(self, call: str, is_over: asyncio.Event) -> None:
        await asyncio.sleep(self.delay_s)
        await self._rooms.create(call)
        room = rtc.Room()
        await room.connect(
            self._settings.livekit_url, join_token(self._settings, call, wire.AGENT_IDENTITY, agent=True)
        )
        await is_over.wait()
        await self._rooms.delete(call)
        await room.disconnect()


class Box:
    """One slot of each role, of which `roles` are there."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.registry = connect(settings.redis)
        self.runtime = Runtime(settings, TokenServer)
        self.agent = Agent(settings, self.registry)

    async def add_workers(self, *roles: str) -> None:
        for role in roles:
            await self.registry.register(role, f"{role}-1", role, "http://127.0.0.1:1", 1)
            await self.registry.heartbeat(role, f"{role}-1", ready=True)

    async def start_agent(self, boot: str = "agent-1") -> None:
        await self.registry.register("agent", boot, "agent", "http://127.0.0.1:1", 1)
        await self.agent.stop()
        self.agent = Agent(self.settings, self.registry)
        self.agent.start(boot)

    async def ask(self, method: str = "POST", path: str = "", secret: str = "", **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if secret:
            given[wire.CALL_SECRET] = secret
        async with self._http.request(method, f"/api/calls{path}", headers=given) as answer:
            text = await answer.text()
            return Answer(answer.status, dict(answer.headers), json.loads(text) if text else {})

    @asynccontextmanager
    async def events(self, call: dict[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        path = f"/api/calls/{call['call_id']}/events"
        async with self._http.get(path, params={"secret": call["secret"]}) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.content_type == "text/event-stream"
            yield _events(answer)

    async def state(self, call: dict[str, Any]) -> CallState:
        return (await self.registry.lookup(call["call_id"])).state

    async def becomes(self, call: dict[str, Any], state: CallState, within_s: float) -> None:
        async def is_so() -> bool:
            return await self.state(call) is state

        await until(is_so, within_s)

    async def is_free(self) -> bool:
        """Whether a call would get every role at once."""
        acquired = await self.registry.acquire("probe", wire.CALL_ROLES)
        await self.registry.cancel("probe")
        await self.registry.release("probe", acquired.fence or 0)
        return acquired.status is AcquireStatus.GRANTED

    @asynccontextmanager
    async def up(self) -> AsyncIterator["Box"]:
        life = asyncio.create_task(self.runtime.run())
        timeout = aiohttp.ClientTimeout(total=20)
        self._http = aiohttp.ClientSession(f"http://127.0.0.1:{self.settings.token_port}", timeout=timeout)
        try:
            await until(lambda: self.runtime.health.read()[0]["phase"] == "ready" or life.done(), within_s=10)
            assert not life.done(), await life
            yield self
        finally:
            self.runtime.stop(EXIT_OK, "the test is over")
            await self._http.close()
            assert await life == EXIT_OK
            await self.agent.stop()
            await self.registry.close()


def box_settings(redis_url: str, livekit: dict[str, Any], **changes: Any) -> Settings:
    given = {"redis_url": redis_url, "token_port": free_pair(), "token_secret": "signs calls", "drain_s": 5}
    return Settings(**{**livekit, **given, **changes})


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))
