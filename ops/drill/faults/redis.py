"""A world's Redis, configured as the box's. It can be killed with and without its data, and hung."""

import asyncio
import contextlib
import shutil
import signal
import time
from pathlib import Path

from ops.drill.faults.forks import Child, Forks
from ops.programs import system_program
from ops.render import redis_conf
from ops.run import StepFailed

START_S = 10.0
POLL_S = 0.02


class Redis:
    """Started by the fork server, without blocking the loop, as everything in a world is; `ops.redis_server` blocks."""

    def __init__(self, port: int, folder: Path, forks: Forks) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._folder = folder
        self._forks = forks
        self._child: Child

    async def start(self) -> None:
        """Return when it answers. Raises StepFailed."""
        self._folder.mkdir(exist_ok=True)
        conf, log = self._folder / "redis.conf", self._folder.with_suffix(".log")
        conf.write_text(redis_conf(self.port, self._folder), encoding="utf-8")
        self._child = await self._forks.start(command=[system_program("redis-server"), str(conf)], log=log)
        deadline = time.monotonic() + START_S
        while not await self._answers():
            if self._child.has_ended or time.monotonic() > deadline:
                raise StepFailed(f"redis-server does not start; {log} says why")
            await asyncio.sleep(POLL_S)

    async def kill(self) -> None:
        """What it has said is on disk."""
        self._child.signal(signal.SIGKILL)
        await self._child.wait()

    async def lose_data(self) -> None:
        """While it is down."""
        await asyncio.to_thread(shutil.rmtree, self._folder)

    def signal(self, signum: signal.Signals) -> None:
        self._child.signal(signum)

    async def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            writer.write(b"PING\r\n")
            try:
                return (await reader.read(16)).startswith(b"+PONG")
            finally:
                writer.close()
        return False
