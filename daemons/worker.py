"""What the speech and chat workers have in common: an engine's threads, and an end that lets work finish."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from daemons.admission import Work
from daemons.errors import Fenced, Unavailable
from daemons.lane import Lane
from daemons.runtime import Runtime, until_idle
from daemons.streams import Endings


class EngineWorker:
    """The part of a Service that does not depend on what the engine does."""

    def __init__(self, runtime: Runtime, role: str, *, threads: int) -> None:
        self.role = role
        self.slots = runtime.settings.slots
        self.direct_slots = runtime.settings.direct_slots
        self.lane = Lane(role, threads, runtime.metrics)
        self.endings = Endings(runtime.metrics)
        self._runtime = runtime

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
        await asyncio.to_thread(self.lane.close)
