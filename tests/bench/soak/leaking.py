"""A daemon that keeps a little of each request, of what its header names: `python -m tests.bench.soak.leaking`."""

import os
import threading
from pathlib import Path

import numpy as np
from aiohttp import web

from daemons import runtime
from ops.bench.load.scripted import Llm

KEEP = "X-Keep"
KEPT_BYTES = 10_240
KEPT_OBJECTS = 100  # of 16 bytes and more: a tenth of what is 10 KB
PUBLISH_S = 0.01
_kept: list[object] = []


def keep(kind: str) -> None:
    if kind == "memory":
        _kept.append(os.urandom(KEPT_BYTES))
    elif kind == "garbage":  # which holds itself, so that only the collector finds it
        garbage: list[object] = [os.urandom(KEPT_BYTES)]
        garbage.append(garbage)
    elif kind == "objects":
        _kept.append([object() for _ in range(KEPT_OBJECTS)])
    elif kind == "files":
        _kept.append(Path("/dev/null").open("rb"))  # noqa: SIM115 - it stays open
    elif kind == "threads":
        threading.Thread(target=threading.Event().wait, daemon=True).start()


class Leaking(Llm):
    direct_slots = 1

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        keep(request.headers[KEEP])
        return await super()._chat(request)


if __name__ == "__main__":
    runtime.PUBLISH_S = PUBLISH_S
    runtime.main(lambda life: Leaking(life, np.zeros(0, np.int16)))
