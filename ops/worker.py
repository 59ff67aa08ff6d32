"""A worker of a run's own: a real daemon on free ports, registered in the run's own Redis."""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from daemons import settings as settings_module
from daemons import wire
from daemons.settings import PREFIX, ROOT
from ops.free_ports import free_pair
from ops.run import StepFailed

READY_S = 120.0
END_S = 15.0
READY_POLL_S = 0.1
POLL_S = 0.002
PATIENCE_S = 30.0
LOG_LINES = 5


class Worker:
    """Ready for requests while inside the context; ends with the thread that started it, also when that is killed."""

    def __init__(
        self, role: str, redis_url: str, folder: Path, module: Sequence[str] = (), /, **settings: object
    ) -> None:
        """`module` and its arguments run instead of the daemon of that role."""
        self.role = role
        self.port = free_pair()
        self.url = f"http://127.0.0.1:{self.port}"
        self.health_url = f"http://127.0.0.1:{self.port + 1}"
        self.log = folder / f"{role}-{self.port}.log"
        self._module = module or (f"daemons.{role}",)
        given = {"redis_url": redis_url, "var_dir": folder, "models_dir": settings_module.load().models_dir}
        own = {f"{PREFIX}{name.upper()}": str(value) for name, value in {**given, **settings}.items()}
        port = {f"{PREFIX}{wire.work_of(role).upper()}_PORT": str(self.port)}
        self._environment = settings_module.environment_without_settings() | own | port

    async def __aenter__(self) -> Self:
        command = ("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", *self._module)
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, env=self._environment, cwd=ROOT, stdout=log, stderr=log
            )
        deadline = time.monotonic() + READY_S
        async with aiohttp.ClientSession() as http:
            while not await self._is_ready(http):
                if self._process.returncode is not None or time.monotonic() > deadline:
                    await self._end()
                    said = "\n  ".join(self.log.read_text(errors="replace").splitlines()[-LOG_LINES:])
                    raise StepFailed(f"the {self.role} worker does not become ready:\n  {said}")
                await asyncio.sleep(READY_POLL_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._end()

    async def health(self, http: aiohttp.ClientSession) -> dict[str, Any]:
        async with http.get(f"{self.health_url}/health") as answer:
            facts: dict[str, Any] = await answer.json()
            return facts

    async def until_idle(self, http: aiohttp.ClientSession) -> None:
        """Return when nothing is in flight any more, some POLL_S after it. Raises StepFailed after PATIENCE_S."""
        await self._until(http, busy=False)

    async def until_busy(self, http: aiohttp.ClientSession) -> None:
        """Return when something is in flight. Raises StepFailed after PATIENCE_S."""
        await self._until(http, busy=True)

    async def _until(self, http: aiohttp.ClientSession, *, busy: bool) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while bool((await self.health(http))["in_flight"]) is not busy:
            if time.monotonic() > deadline:
                raise StepFailed(f"the {self.role} worker was {'idle' if busy else 'busy'} for {PATIENCE_S:g} s")
            await asyncio.sleep(POLL_S)

    async def _end(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), END_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _is_ready(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get(f"{self.health_url}/readyz", timeout=aiohttp.ClientTimeout(5)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False
