"""The drill from its beginning to its end: crowds, clients that go away, what is left of them, and how work stops."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import aiohttp
import numpy as np
import psutil

from daemons.wire import Role
from ops.drill.disconnects.aftermath import SETTLE_S, contradictions, is_settled, left_over
from ops.drill.disconnects.asking import Refused, ask, session
from ops.drill.disconnects.crowd import crowd
from ops.drill.disconnects.doors import Broken
from ops.drill.disconnects.party import Party, busy_of, doors_of, parties
from ops.drill.disconnects.rounds import Gone, dealt, rounds_at
from ops.drill.disconnects.stops import stop_times_ms
from ops.drill.disconnects.watch import FRESH_S, State
from ops.drill.disconnects.wrong import Rule, Wrong
from ops.redis_server import RedisServer
from ops.run import StepFailed
from ops.worker import Worker

ROLES: tuple[Role, ...] = ("tts", "llm", "stt")
PLACES = 3  # of each worker, for requests without a call
CROWDS = 3  # at each door
ENGINE_STOPS = "callbox_cancel_to_stop_seconds"


@dataclass
class Aftermath:
    """What was seen of one worker before the rounds and after."""

    before: State
    after: State
    settled_s: float


@dataclass
class Outcome:
    seed: int
    crowds: int = 0
    rounds_lasted_s: float = 0.0
    gone: dict[Role, Gone] = field(default_factory=dict)
    aftermath: dict[Role, Aftermath] = field(default_factory=dict)
    stops_ms: dict[str, list[float]] = field(default_factory=dict)
    engine_stops_ms: dict[Role, float] = field(default_factory=dict)  # mean, of the worker's own count
    wrong: list[Wrong] = field(default_factory=list)

    def of(self, rule: Rule) -> int:
        return sum(one.rule is rule for one in self.wrong)

    def blame(self, rule: Rule, where: str, *words: str) -> None:
        self.wrong += [Wrong(rule, where, said) for said in words]


async def drill(
    rounds: int,
    closes: int,
    seed: int,
    *,
    folder: Path,
    on_step: Callable[[], None],
    roles: Sequence[Role] = ROLES,
    crowds: int = CROWDS,
    programs: Mapping[Role, Sequence[str]] | None = None,
    settings: Mapping[str, object] | None = None,
) -> Outcome:
    """`on_step` is told of every crowd (there are `crowds` at each door), round and close. Raises StepFailed.

    `programs` stand in for the daemons of their roles; `settings` are those of all workers.
    """
    outcome = Outcome(seed)
    given = {"slots": 1, "direct_slots": PLACES, **(settings or {})}
    with RedisServer(folder) as redis:
        workers = {role: Worker(role, redis.url, folder, (programs or {}).get(role, ()), **given) for role in roles}
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(worker) for worker in workers.values()))
            http = await stack.enter_async_context(session())
            invited = await parties(workers, http)
            for party in invited:
                await _crowds(party, http, crowds, outcome, on_step)
            try:
                await _rounds(invited, redis.url, rounds, outcome, on_step)
            except (psutil.Error, aiohttp.ClientError) as error:
                raise StepFailed(f"a worker did not outlive the rounds of seed {seed}: {error}") from error
            for party in invited:
                await _ask_again(party, http, outcome)
                if closes:
                    await _stops(party, http, closes, outcome, on_step)
                outcome.blame(Rule.LOG, party.role, *party.watch.bad_lines())
    return outcome


def steps(rounds: int, closes: int) -> int:
    """How often `on_step` is called at most."""
    silence = np.zeros(1, np.int16)
    doors = sum(len(doors_of(role, silence)) for role in ROLES)
    return CROWDS * doors + rounds + closes * sum(len(busy_of(role, silence)) for role in ROLES)


async def _crowds(
    party: Party, http: aiohttp.ClientSession, crowds: int, outcome: Outcome, on_step: Callable[[], None]
) -> None:
    for door in party.doors:
        try:
            alone = party.alone[door.name] = await ask(http, party.worker.url, door)
        except (Refused, Broken) as error:
            raise StepFailed(f"{door.name} does not answer a client who is alone: {error}") from error
        for _ in range(crowds):
            outcome.blame(Rule.CROWD, door.name, *await crowd(http, party.worker.url, door, PLACES, alone))
            outcome.crowds += 1
            on_step()


async def _rounds(
    invited: Sequence[Party], redis_url: str, rounds: int, outcome: Outcome, on_step: Callable[[], None]
) -> None:
    await asyncio.sleep(FRESH_S)
    before = {party.role: (await party.watch.state(), await party.watch.metrics()) for party in invited}
    began_s = time.monotonic()
    going = [
        rounds_at(party, numbers, outcome.seed, PLACES, redis_url, on_step) for party, numbers in dealt(rounds, invited)
    ]
    gone_by_party = await asyncio.gather(*going)
    outcome.rounds_lasted_s = time.monotonic() - began_s
    await asyncio.sleep(FRESH_S)
    for party, gone in zip(invited, gone_by_party, strict=True):
        outcome.gone[party.role] = gone
        state, metrics = before[party.role]
        after = await party.watch.until(partial(is_settled, state), SETTLE_S)
        settled_s = time.monotonic() - began_s - outcome.rounds_lasted_s
        outcome.aftermath[party.role] = Aftermath(state, after, settled_s)
        outcome.blame(Rule.LEFT, party.role, *left_over(state, after))
        outcome.blame(Rule.ANSWER, party.role, *(f"{left.plan}: {left.wrong}" for left in gone.lefts if left.wrong))
        now = await party.watch.metrics()
        outcome.blame(Rule.COUNT, party.role, *contradictions(party.role, gone.lefts, metrics, now))


async def _ask_again(party: Party, http: aiohttp.ClientSession, outcome: Outcome) -> None:
    for door in party.doors:
        try:
            again = await ask(http, party.worker.url, door)
        except (Refused, Broken) as error:
            outcome.blame(Rule.CHANGED, door.name, str(error))
        else:
            if again != (alone := party.alone[door.name]):
                outcome.blame(Rule.CHANGED, door.name, f"it answers {again!r:.200}, and before {alone!r:.200}")


async def _stops(
    party: Party, http: aiohttp.ClientSession, closes: int, outcome: Outcome, on_step: Callable[[], None]
) -> None:
    await asyncio.sleep(FRESH_S)
    before = await party.watch.metrics()
    for name, door in party.busy.items():
        dice = Random(f"{outcome.seed}/{name}")  # noqa: S311 - no secret
        try:
            outcome.stops_ms[name] = await stop_times_ms(party.watch, http, door, closes, dice, on_step)
        except StepFailed as error:
            outcome.stops_ms[name] = [float("inf")]
            outcome.blame(Rule.LEFT, name, str(error))
    await asyncio.sleep(FRESH_S)
    after = await party.watch.metrics()
    stops_s, stops = (after[name, ()] - before[name, ()] for name in (f"{ENGINE_STOPS}_sum", f"{ENGINE_STOPS}_count"))
    outcome.engine_stops_ms[party.role] = 1000 * stops_s / stops if stops else float("nan")
