"""How soon a worker stops when its client goes away in the middle of its work."""

import asyncio
from collections.abc import Callable
from random import Random

import aiohttp

from ops.drill.disconnects.client import Client, Manner, frames_of, head_of
from ops.drill.disconnects.doors import Door, Post
from ops.drill.disconnects.watch import Watch

MANNERS = (Manner.CLOSE, Manner.RESET)
AT_WORK_S = 0.05  # at most, before it goes away
TRIES = 3  # for each figure: work may end by itself just before
STOP_S = 30.0


async def stop_times_ms(
    watch: Watch,
    http: aiohttp.ClientSession,
    door: Callable[[int], Door],
    closes: int,
    dice: Random,
    on_close: Callable[[], None],
) -> list[float]:
    """Of up to `closes` clients, one after the other, each going away while the engine works for it.

    `door` is given a number, so that no prompt is in a cache. Raises StepFailed when the worker does not stop.
    """
    took_ms: list[float] = []
    for number in range(TRIES * closes):
        if len(took_ms) == closes:
            break
        manner = MANNERS[len(took_ms) % len(MANNERS)]
        one_ms = await _stop_time_ms(watch, http, door(number), manner, dice.uniform(0.0, AT_WORK_S))
        if one_ms is not None:
            took_ms.append(one_ms)
            on_close()
    return took_ms


async def _stop_time_ms(
    watch: Watch, http: aiohttp.ClientSession, door: Door, manner: Manner, wait_s: float
) -> float | None:
    client, port = Client(), watch.worker.port
    reading: asyncio.Task[None] | None = None
    try:
        await client.connect(port)
        await client.send(head_of(door, port, {}))
        if isinstance(door, Post):
            await client.send(door.body)
        else:
            await client.receive()
            await client.send(b"".join(frames_of(door)))
        reading = asyncio.create_task(client.receive_all())  # or the worker would wait for its listener
        await watch.worker.until_busy(http)
        await asyncio.sleep(wait_s)

        async def leave(reading: asyncio.Task[None] = reading) -> None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await client.leave(manner)

        return await watch.stopped_after_ms(leave, STOP_S)
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        client.gone()
