"""One client more than there are places, all at once: one is refused, and the others never notice."""

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from ops.drill.disconnects.asking import Refused, ask
from ops.drill.disconnects.doors import Broken, Door

TRIES = 5  # for a crowd: on a machine that stands still, one may have left before another came

MARGIN_S = 0.2  # for a request to come to the worker


class NoCrowd(Exception):
    """One client had its answer before the last one had asked."""


async def crowd(http: aiohttp.ClientSession, url: str, door: Door, places: int, alone: str) -> list[str]:
    """What went wrong among `places` + 1 clients of whom each would be told `alone` by itself."""
    for _ in range(TRIES):
        try:
            return judged(await _all_at_once(http, url, door, places + 1), alone)
        except NoCrowd:
            continue
    return [f"in {TRIES} tries the first client had its answer before the last one had asked"]


async def _all_at_once(http: aiohttp.ClientSession, url: str, door: Door, clients: int) -> Sequence[str | Exception]:
    began_s: list[float] = []
    answered_s: list[float] = []

    async def one() -> str:
        began_s.append(time.monotonic())
        answer = await ask(http, url, door)
        answered_s.append(time.monotonic())
        return answer

    outcomes: list[str | Exception] = []
    for outcome in await asyncio.gather(*(one() for _ in range(clients)), return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, Refused | Broken):
            raise outcome
        outcomes.append(outcome)
    if len(answered_s) == clients and min(answered_s) - max(began_s) < MARGIN_S:
        raise NoCrowd
    return outcomes


def judged(outcomes: Sequence[str | Exception], alone: str) -> list[str]:
    refused = sum(isinstance(outcome, Refused) for outcome in outcomes)
    wrong = [] if refused == 1 else [f"{refused} of {len(outcomes)} were refused"]
    wrong += [str(outcome) for outcome in outcomes if isinstance(outcome, Broken)]
    different = [outcome for outcome in outcomes if isinstance(outcome, str) and outcome != alone]
    return wrong + [f"one was told {outcome!r:.200}, alone {alone!r:.200}" for outcome in different]
