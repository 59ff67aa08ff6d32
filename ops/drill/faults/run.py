"""The drill: rounds of one random fault each, in several worlds side by side, and what came of them."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from ops.drill.faults.forks import Forks
from ops.drill.faults.kinds import KINDS, Kind, deck
from ops.drill.faults.oracle import Counts, Rule, Violation
from ops.drill.faults.world import DEFAULT, LOOK_S, Entries, Party, World

LEAD_S = (0.0, 3.0)  # into a round, before its fault
SETTLE_S = 2.0  # after it, for what comes late
AVAILABLE_S = 15.0  # after a fault: back-off 5 s, a heartbeat and two good probes of 2 s each, and the start
SERVES_S = 40.0  # after a fault: a call has come its way
FAREWELL_S = 5.0


@dataclass(frozen=True, slots=True)
class Wrong:
    """A violation, and the round in which it showed (0: before the first)."""

    world: str
    round: int
    fault: str
    violation: Violation

    def __str__(self) -> str:
        return f"{self.violation.rule}: {self.world}, round {self.round} ({self.fault}): {self.violation.words}"


@dataclass
class Outcome:
    seed: int
    rounds: int = 0
    lasted_s: float = 0.0
    by_kind: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    available_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    serves_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    noticed_s: list[float] = field(default_factory=list)
    given_up_s: list[float] = field(default_factory=list)
    wrong: list[Wrong] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    def of(self, rule: Rule) -> int:
        return sum(one.violation.rule is rule for one in self.wrong)


async def drill(
    rounds: int,
    seed: int,
    worlds: int,
    *,
    folder: Path,
    on_round: Callable[[], None],
    kinds: Sequence[Kind] = KINDS,
    entries: Entries = DEFAULT,
) -> Outcome:
    """`on_round` is told of each round that is over. Raises StepFailed when a world cannot be had or kept up."""
    cards = deck(kinds, rounds, Random(seed))  # noqa: S311
    numbered: Iterator[tuple[int, Kind]] = iter(enumerate(cards, 1))
    outcome, started_s = Outcome(seed), time.monotonic()
    try:
        async with Forks("daemons.runtime", *entries.modules) as forks, asyncio.TaskGroup() as tasks:
            for number in range(1, min(worlds, len(cards)) + 1):
                world = World(f"world{number}", folder / f"world{number}", forks, entries)
                tasks.create_task(_live(world, numbered, outcome, on_round))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    outcome.lasted_s = time.monotonic() - started_s
    return outcome


async def _live(
    world: World, cards: Iterator[tuple[int, Kind]], outcome: Outcome, on_round: Callable[[], None]
) -> None:
    async with world.running():
        for number, kind in cards:
            rng = Random(f"{outcome.seed}/{number}")  # noqa: S311
            await world.meanwhile(_round(world, kind, rng, outcome))
            _collect(world, number, kind.name, outcome)
            outcome.rounds += 1
            outcome.by_kind[kind.name] += 1
            on_round()
        await asyncio.sleep(FAREWELL_S)
        _collect(world, 0, "the end", outcome)
        outcome.counts += world.oracle.counts
        outcome.noticed_s += world.oracle.noticed_s
        outcome.given_up_s += world.oracle.given_up_s


async def _round(world: World, kind: Kind, rng: Random, outcome: Outcome) -> None:
    await asyncio.sleep(rng.uniform(*LEAD_S))
    struck = await kind.strike(world, rng)
    healed_ns = time.monotonic_ns()
    concerned = [struck] if struck is not None and struck in world.workers else world.workers
    available_s = await _until(lambda: all(world.available(party) for party in concerned), AVAILABLE_S)
    if available_s is None:
        missing = ", ".join(party.name for party in concerned if not world.available(party))
        words = f"{missing} not available {AVAILABLE_S:g} s after {kind.name}"
        world.oracle.blame(Rule.LEAK, time.monotonic_ns(), words)
        await world.until_all_available(SERVES_S)
    else:
        outcome.available_s[kind.name].append(available_s)
    enough = any if struck not in world.workers else all
    serves_s = await _until(lambda: enough(_serves(world, party, healed_ns) for party in concerned), SERVES_S)
    if serves_s is None:
        words = f"{', '.join(party.name for party in concerned)} idle for {SERVES_S:g} s after {kind.name}"
        world.oracle.blame(Rule.LEAK, time.monotonic_ns(), words)
    else:
        outcome.serves_s[kind.name].append((time.monotonic_ns() - healed_ns) / 1e9)
    await asyncio.sleep(SETTLE_S)


def _serves(world: World, party: Party, since_ns: int) -> bool:
    """Whether it has accepted work of a call since then."""
    boot = world.boot_of(party)
    return boot is not None and world.oracle.last_accepted_ns.get((party.worker, boot), 0) > since_ns


async def _until(condition: Callable[[], bool], limit_s: float) -> float | None:
    """Seconds until it holds, None when it does not within the limit. First asked after the next look at the world."""
    started_s = time.monotonic()
    while True:
        await asyncio.sleep(LOOK_S)
        waited_s = time.monotonic() - started_s
        if condition():
            return waited_s
        if waited_s > limit_s:
            return None


def _collect(world: World, number: int, fault: str, outcome: Outcome) -> None:
    outcome.wrong += [Wrong(world.name, number, fault, violation) for violation in world.oracle.violations]
    world.oracle.violations.clear()
