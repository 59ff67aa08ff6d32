"""The tiny daemon with one fault of the demo's: a thread of the worker's own process answers for its health."""

import asyncio
import os
import socket
from threading import Thread

from daemons.health import _Handler, _Server
from daemons.runtime import Runtime, main
from tests.tiny_daemon import Tiny


async def keep_health_thread(runtime: Runtime, listening: socket.socket) -> None:
    _Handler.block = runtime.health
    server = _Server(listening.getsockname()[:2], _Handler, bind_and_activate=False)
    server.socket.close()
    listening.setblocking(True)
    server.socket = listening
    server.parent_pid = os.getppid()
    Thread(target=server.serve_forever, daemon=True).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    setattr(Runtime, "_keep_health_child", keep_health_thread)  # noqa: B010 - a method, to the type checker
    main(Tiny)
