"""The tiny daemon with one fault of the demo's: a thread of the worker's own process answers for its health."""

import asyncio
import socket
from threading import Thread

from daemons.health import serve
from daemons.runtime import Runtime, main
from tests.tiny_daemon import Tiny


async def keep_health_thread(runtime: Runtime, listening: socket.socket) -> None:
    Thread(target=serve, args=(runtime.health, listening), daemon=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    setattr(Runtime, "_keep_health_child", keep_health_thread)  # noqa: B010 - a method, to the type checker
    main(Tiny)
