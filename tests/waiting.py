"""Waiting for what happens elsewhere, no longer than stated."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(happened: Callable[[], bool | Awaitable[bool]], within_s: float) -> None:
    """Return once `happened`; fails when it has not within the time."""
    deadline = time.monotonic() + within_s
    while True:
        answer = happened()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, f"it did not happen within {within_s:g} s"
        await asyncio.sleep(0.02)
