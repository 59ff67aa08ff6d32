"""The rounds: several clients at once at each worker, over its capacity, and each goes away in its own way."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from daemons.admission import Claim
from daemons.errors import Unavailable
from daemons.registry import AcquireStatus, Member, Registry, connect
from ops.drill.disconnects.leaving import Left, Plan, go
from ops.drill.disconnects.party import Party
from ops.run import StepFailed

MORE_THAN_PLACES = 3  # clients at once, beyond the places for requests without a call
LOOK_EVERY = 25  # rounds of a worker, at its memory; then all clients have gone
RENEW_S = 1.0
GRANT_S = 30.0


@dataclass
class Gone:
    """The clients of one worker, in the order in which they went."""

    lefts: list[Left] = field(default_factory=list)
    memory_bytes: list[tuple[int, int]] = field(default_factory=list)  # (rounds so far, bytes)


async def rounds_at(
    party: Party, numbers: Sequence[int], seed: int, places: int, redis_url: str, on_round: Callable[[], None]
) -> Gone:
    """Raises StepFailed."""
    gone = Gone()
    async with _call(party, redis_url) as headers:
        await _all(party, numbers, seed, places + MORE_THAN_PLACES, headers, gone, on_round)
    return gone


async def _all(
    party: Party,
    numbers: Sequence[int],
    seed: int,
    crew: int,
    headers: Mapping[str, str],
    gone: Gone,
    on_round: Callable[[], None],
) -> None:
    async def one_after_the_other(plans: Iterator[Plan]) -> None:
        for plan in plans:
            gone.lefts.append(await go(plan, party.worker.port, headers if plan.of_call else {}))
            on_round()

    for at in range(0, len(numbers), LOOK_EVERY):
        plans = (Plan.draw(seed, number, party.doors) for number in numbers[at : at + LOOK_EVERY])
        async with asyncio.TaskGroup() as tasks:
            for _ in range(crew):
                tasks.create_task(one_after_the_other(plans))
        gone.memory_bytes.append((len(gone.lefts), await party.watch.memory_at_rest_bytes()))


@contextlib.asynccontextmanager
async def _call(party: Party, redis_url: str) -> AsyncIterator[Mapping[str, str]]:
    """A call that has a lease on the worker, and the headers of its requests."""
    registry, call = connect(redis_url), f"drill-{party.role}"
    try:
        fence, member = await _granted(registry, call, party)
        renewing = asyncio.create_task(_renew(registry, call, fence))
        try:
            yield Claim(call, member.slot, member.fence, member.boot).headers()
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            await registry.release(call, fence)
    finally:
        await registry.close()


async def _granted(registry: Registry, call: str, party: Party) -> tuple[int, Member]:
    """(fence, member).

    A worker whose heartbeat was late once, as happens when a busy machine loads its model, has no slots until a monitor
    finds it well; here is none but this.
    """
    role, port = party.role, party.worker.port
    deadline = time.monotonic() + GRANT_S
    while True:
        granted = await registry.acquire(call, [role])
        if granted.status is AcquireStatus.GRANTED and granted.fence is not None and granted.bundle is not None:
            return granted.fence, granted.bundle[role]
        if time.monotonic() > deadline:
            raise StepFailed(f"the registry gives no lease on the {role} worker: {granted.status}")
        await registry.probe(f"127.0.0.1:{port}", party.watch.boot, ok=True)
        await asyncio.sleep(RENEW_S)


async def _renew(registry: Registry, call: str, fence: int) -> None:
    while True:
        await asyncio.sleep(RENEW_S)
        with contextlib.suppress(Unavailable):
            await registry.renew(call, fence)


def dealt(rounds: int, parties: Sequence[Party]) -> Iterator[tuple[Party, list[int]]]:
    """Each party's own rounds, by number from 1 on, so that every door has the same share of them."""
    shares = itertools.cycle(party for party in parties for _ in party.doors)
    numbers: dict[int, list[int]] = {id(party): [] for party in parties}
    for number, party in zip(range(1, rounds + 1), shares, strict=False):
        numbers[id(party)].append(number)
    return ((party, numbers[id(party)]) for party in parties)
