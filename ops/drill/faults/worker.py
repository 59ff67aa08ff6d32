"""A worker without a model, on the real runtime: whatever it does for a call, it writes into the journal."""

import asyncio
import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from daemons.admission import Claim
from daemons.runtime import Runtime, main, until_idle
from daemons.streams import to_whoever_is_there
from ops.drill.faults.journal import Journal, Kind


class Worker:
    """Works in steps, each of them journaled and then told to the client, for as long as it may."""

    direct_slots = 0

    def __init__(self, runtime: Runtime, role: str, journal: Path) -> None:
        self.role = role
        self.slots = runtime.settings.slots
        self._runtime = runtime
        self._journal = Journal(journal)
        self._works = itertools.count(1)

    async def load(self) -> str:
        return "none"

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [web.get("/work", to_whoever_is_there(self._work))]

    async def drain(self) -> None:
        await until_idle(self._runtime.health)

    async def close(self) -> None:
        """It holds nothing."""

    async def _work(self, request: web.Request) -> web.StreamResponse:
        steps, step_s = int(request.query["steps"]), float(request.query["step_ms"]) / 1000
        async with self._runtime.admission.admit(request.headers) as work:
            claim = Claim.from_headers(request.headers)
            if claim is None:
                raise web.HTTPBadRequest(text="only calls are served here")
            place = (self.role, self._runtime.worker, self._runtime.boot, claim.slot, claim.fence, claim.call)
            number = next(self._works)
            self._journal.write(Kind.BEGIN, *place, number)
            why = "cut short"
            try:
                response = web.StreamResponse()
                await response.prepare(request)
                with work.active():
                    for _ in range(steps):
                        await asyncio.sleep(step_s)
                        self._journal.write(Kind.STEP, *place, number)
                        work.progress()
                        await response.write(b".")
                why = "done"
                return response
            finally:
                self._journal.write(Kind.END, *place, number, why)


def run(role: str, journal: str) -> NoReturn:
    main(lambda runtime: Worker(runtime, role, Path(journal)))
