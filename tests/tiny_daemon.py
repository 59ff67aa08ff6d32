"""A daemon without a model: `python -m tests.tiny_daemon`. It takes tts's place; its voice says how its load goes."""

import asyncio
import ctypes
import time
from collections.abc import Iterable

from aiohttp import web

from daemons.errors import ConfigurationError
from daemons.registry import Lease
from daemons.runtime import Runtime, main, until_idle

STUCK_S = 600


class Tiny:
    role = "tts"
    slots = 1

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.direct_slots = runtime.settings.direct_slots
        self._leases: list[str] = []
        runtime.on_leases = self._leases_changed

    async def load(self) -> str:
        match self._runtime.settings.tts_voice:
            case "slow":
                await asyncio.sleep(1.5)
            case "broken":
                raise RuntimeError("the model is broken")
            case "missing":
                raise ConfigurationError("there is no such voice; `callbox models` lists them")
            case "stuck":
                await asyncio.to_thread(time.sleep, STUCK_S)
        return "tiny"

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return web.get("/work", self._work), web.get("/hold_gil", self._hold_gil), web.get("/leases", self._show_leases)

    async def drain(self) -> None:
        await until_idle(self._runtime.health)

    async def close(self) -> None:
        """It holds nothing."""

    async def _work(self, request: web.Request) -> web.Response:
        async with self._runtime.admission.admit(request.headers) as work:
            with work.active():
                await asyncio.sleep(float(request.query["s"]))
        return web.Response(text="done")

    async def _hold_gil(self, request: web.Request) -> web.Response:
        ctypes.PyDLL(None).usleep(int(float(request.query["s"]) * 1e6))  # unlike CDLL, it keeps the GIL
        return web.Response(text="held")

    async def _show_leases(self, request: web.Request) -> web.Response:
        return web.json_response(self._leases)

    def _leases_changed(self, leases: tuple[Lease, ...]) -> None:
        self._leases = [lease.call for lease in leases]


if __name__ == "__main__":
    main(Tiny)
