"""The faults that a round may bring, each on one party of a world (or on its Redis), each healed at its end."""

import asyncio
import contextlib
import math
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from daemons.registry import WorkerState
from ops.drill.faults.oracle import AGENT_LEAK_S, EVERYBODY, REDIS, TOLERANCE_S, WORKER_LEAK_S, Rule, Trouble
from ops.drill.faults.proxy import CLEAR, Line, Replies
from ops.drill.faults.world import LOOK_S, Party, World

STOP_S = 20.0  # longer than a lease lives
PAUSE_S = (1.0, 4.0)
PARTITION_S = (1.0, 4.0)
LONG_PARTITION_S = (11.0, 18.0)
AWAY_S = (0.2, 7.0)
HANG_S = (0.5, 4.0)
SPOILT_S = (3.0, 8.0)
DELAY_S = (0.02, 0.25)  # there and back within the registry client's time-out
LONG_DELAY_S = (0.6, 1.5)  # beyond it
BYTES_PER_S = (2000, 10_000)

# How long calls must outlive a fault
AWAY_SPARES_S = 8.0  # Redis, when it refuses connections
SILENCE_SPARES_S = 5.5  # whatever answers nothing: each try costs the registry client's time-out of 1 s


@dataclass(frozen=True, slots=True)
class Kind:
    """`strike(world, rng)` returns when the fault is over: whom it struck, None for Redis."""

    name: str
    share: int  # of a deck of rounds
    strike: Callable[[World, Random], Awaitable[Party | None]]


PROCESSES = ("agent", "stt", "tts", "monitor")
WORKERS = ("agent", "stt", "tts")
CLIENTS = (*PROCESSES, "callers")


@contextlib.contextmanager
def trouble(world: World, who: str, spares_s: float) -> Iterator[None]:
    """`spares_s`: how long calls outlive it, by what was measured, not by what was meant."""
    struck = Trouble(who, time.monotonic_ns(), spares_s)
    world.oracle.troubles.append(struck)
    try:
        yield
    finally:
        struck.ended_ns = time.monotonic_ns()


def _one_of(world: World, rng: Random, roles: tuple[str, ...]) -> Party:
    return rng.choice([party for party in world.parties if party.role in roles])


async def _kill(world: World, rng: Random) -> Party:
    party = _one_of(world, rng, PROCESSES)
    with trouble(world, party.worker, spares_s=0):
        party.started.clear()
        party.signal(signal.SIGKILL)
        await party.started.wait()
    return party


async def _kill_for_long(world: World, rng: Random) -> Party:
    """Nobody starts it again until what it held must have come free."""
    party = _one_of(world, rng, WORKERS)
    bound_s = (AGENT_LEAK_S if party.role == "agent" else WORKER_LEAK_S) + TOLERANCE_S
    party.may_start.clear()
    try:
        with trouble(world, party.worker, spares_s=0):
            boot, killed_ns = world.boot_of(party), time.monotonic_ns()
            party.signal(signal.SIGKILL)
            while world.oracle.aged_s(killed_ns, time.monotonic_ns()) < bound_s:  # noqa: ASYNC110 - time wakes nobody
                await asyncio.sleep(LOOK_S)
            for record in world.records():
                gone = record.state in (WorkerState.GONE, WorkerState.EXPECTED) or party.role == "agent"
                if (record.worker, record.boot) == (party.worker, boot) and (record.leases or not gone):
                    words = f"{party.name} has died and is still {record.state} with {len(record.leases)} leases"
                    world.oracle.blame(Rule.LEAK, time.monotonic_ns(), words)
    finally:
        party.may_start.set()
    return party


async def _stopped(world: World, party: Party, seconds: float) -> Party:
    """It is over just before the process is told to go on: that one may be back at work sooner than we are."""
    try:
        with trouble(world, party.worker, SILENCE_SPARES_S):
            party.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
    finally:
        party.signal(signal.SIGCONT)
    return party


async def _pause(world: World, rng: Random) -> Party:
    return await _stopped(world, _one_of(world, rng, PROCESSES), rng.uniform(*PAUSE_S))


async def _stop(world: World, rng: Random) -> Party:
    return await _stopped(world, _one_of(world, rng, PROCESSES), STOP_S)


async def _spoilt(world: World, rng: Random, line: Line, seconds: float, spares_s: float = SILENCE_SPARES_S) -> Party:
    party = _one_of(world, rng, CLIENTS)
    with trouble(world, party.worker, spares_s):
        if line.refuse:
            party.proxy.cut()
        party.proxy.line = line
        try:
            await asyncio.sleep(seconds)
        finally:
            party.proxy.line = CLEAR
    return party


async def _cut(world: World, rng: Random) -> Party:
    """Every connection is reset; in half of the rounds new ones are too, for a while."""
    return await _spoilt(world, rng, Line(refuse=True), rng.choice((0.0, rng.uniform(*PARTITION_S))))


async def _half_open(world: World, rng: Random) -> Party:
    party = _one_of(world, rng, CLIENTS)
    with trouble(world, party.worker, SILENCE_SPARES_S):
        party.proxy.half_open()
    return party


async def _delay(world: World, rng: Random) -> Party:
    delay_s = rng.uniform(*DELAY_S)
    line = Line(delay_s=delay_s, jitter_s=delay_s / 2)
    return await _spoilt(world, rng, line, rng.uniform(*SPOILT_S), spares_s=math.inf)


async def _delay_for_long(world: World, rng: Random) -> Party:
    line = Line(delay_s=rng.uniform(*LONG_DELAY_S), jitter_s=0.5)
    return await _spoilt(world, rng, line, rng.uniform(*LONG_PARTITION_S))


async def _partition(world: World, rng: Random) -> Party:
    return await _spoilt(world, rng, Line(hold=True), rng.uniform(*PARTITION_S))


async def _partition_for_long(world: World, rng: Random) -> Party:
    return await _spoilt(world, rng, Line(hold=True), rng.uniform(*LONG_PARTITION_S))


async def _replies_dropped(world: World, rng: Random) -> Party:
    """Requests are carried out, and their replies are lost."""
    line = Line(replies=rng.choice((Replies.RESET, Replies.SILENCE)))
    return await _spoilt(world, rng, line, rng.uniform(*PARTITION_S))


async def _throttle(world: World, rng: Random) -> Party:
    line = Line(bytes_per_s=rng.uniform(*BYTES_PER_S))
    return await _spoilt(world, rng, line, rng.uniform(*SPOILT_S), spares_s=math.inf)


async def _redis_restarts(world: World, rng: Random) -> None:
    with trouble(world, REDIS, AWAY_SPARES_S):
        await world.redis.kill()
        await asyncio.sleep(rng.uniform(*AWAY_S))
        await world.redis.start()


async def _redis_loses_data(world: World, rng: Random) -> None:
    with trouble(world, REDIS, AWAY_SPARES_S):
        await world.redis.kill()
        await world.redis.lose_data()
        world.oracle.data_lost()
        await asyncio.sleep(rng.uniform(*AWAY_S))
        await world.redis.start()


async def _redis_hangs(world: World, rng: Random) -> None:
    with trouble(world, REDIS, SILENCE_SPARES_S):
        world.redis.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(rng.uniform(*HANG_S))
        finally:
            world.redis.signal(signal.SIGCONT)


ON_PARTIES = (
    Kind("kill -9", 4, _kill),
    Kind("kill -9, stays away", 2, _kill_for_long),
    Kind("SIGSTOP, short", 2, _pause),
    Kind("SIGSTOP 20 s", 2, _stop),
    Kind("TCP cut", 3, _cut),
    Kind("TCP half-open", 3, _half_open),
    Kind("TCP delay", 2, _delay),
    Kind("TCP delay beyond time-outs", 1, _delay_for_long),
    Kind("TCP throttle", 1, _throttle),
    Kind("partition, short", 2, _partition),
    Kind("partition, long", 2, _partition_for_long),
    Kind("reply dropped after execution", 4, _replies_dropped),
)
ON_REDIS = (
    Kind("Redis restart, AOF", 4, _redis_restarts),
    Kind("Redis restart, data lost", 4, _redis_loses_data),
    Kind("Redis hangs", 2, _redis_hangs),
)


async def _two_at_once(world: World, rng: Random) -> None:
    """Together they may end calls; overlaps and leaks they must not bring."""
    one, other = rng.choice(ON_PARTIES + ON_REDIS), rng.choice(ON_PARTIES)
    with trouble(world, EVERYBODY, spares_s=0):
        await asyncio.gather(one.strike(world, Random(rng.random())), other.strike(world, Random(rng.random())))  # noqa: S311


KINDS = (*ON_PARTIES, *ON_REDIS, Kind("two at once", 4, _two_at_once))


def deck(kinds: Sequence[Kind], rounds: int, rng: Random) -> list[Kind]:
    """A kind for each round: all of them in their shares, in a random order."""
    cards: list[Kind] = []
    while len(cards) < rounds:
        batch = [kind for kind in kinds for _ in range(kind.share)]
        rng.shuffle(batch)
        cards += batch
    return cards[:rounds]
