"""What the speech and chat workers have in common: an engine's threads, and an end that lets work finish."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from daemons.admission import Work
from daemons.errors import CallboxError, Fenced, Unavailable
from daemons.lane import Lane
from daemons.runtime import Runtime, until_idle
from daemons.streams import Endings

log = logging.getLogger(__name__)

CHECK_EVERY_S = 2.0


class EngineWorker:
    """The part of a Service that does not depend on what the engine does."""

    def __init__(self, runtime: Runtime, role: str, *, threads: int, niceness: int = 0) -> None:
        self.role = role
        self.slots = runtime.settings.slots
        self.direct_slots = runtime.settings.direct_slots
        self.lane = Lane(role, threads, runtime.metrics, niceness=niceness)
        self.endings = Endings(runtime.metrics)
        self._runtime = runtime
        self._checking: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def admit(self, request: web.Request) -> AsyncIterator[Work]:
        """A place for this request, or its protocol's refusal at once. Work that is aborted raises the reason."""
        async with self._runtime.admission.admit(request.headers) as work:
            try:
                yield work
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if error.args and task is not None and task.uncancel() == 0:  # only `Work.abort` gives a reason
                    kind = Unavailable if self._runtime.draining.is_set() else Fenced
                    raise kind(str(error)) from None
                raise

    async def drain(self) -> None:
        """What is in flight may end; then streams that are open but silent are told to go elsewhere."""
        try:
            await until_idle(self._runtime.health)
        finally:
            self._runtime.admission.abort_all("this worker is stopping")

    async def close(self) -> None:
        if self._checking is not None:
            self._checking.cancel()
        await asyncio.to_thread(self.lane.close)

    def keep_checking(self, check: Callable[[], Awaitable[None]]) -> None:
        """Not ready while `check` raises: what the engine stands on is away.

        No new calls come then; those that are here may try their luck.
        """
        self._checking = asyncio.create_task(self._keep_checking(check), name="check")

    async def _keep_checking(self, check: Callable[[], Awaitable[None]]) -> None:
        away = False
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            try:
                await check()
            except CallboxError as error:
                if not away:
                    log.warning("not ready: %s", error)
                away = True
            else:
                if away:
                    log.info("the upstream answers again")
                away = False
            self._runtime.health.set_upstream_away(away)
