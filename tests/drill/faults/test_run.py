"""The whole drill: a hundred rounds against the product, and a few against one that is broken on purpose."""

import asyncio
import math
import signal
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from ops.drill.faults.kinds import KINDS, Kind, deck, trouble
from ops.drill.faults.oracle import PARTITION_S, REDIS, TOLERANCE_S, Rule
from ops.drill.faults.run import drill
from ops.drill.faults.world import Entries, World
from ops.run import StepFailed

ROUNDS, WORLDS, SEED = 100, 8, 20
ENTRIES = "tests.drill.faults.entries"


def kinds(*names: str) -> list[Kind]:
    chosen = [kind for kind in KINDS if kind.name in names]
    assert len(chosen) == len(names)
    return chosen


@pytest.mark.integration
@pytest.mark.timeout(1800)
async def test_under_every_fault_no_slot_is_used_twice_none_leaks_and_no_call_is_lost(tmp_path: Path) -> None:
    outcome = await drill(ROUNDS, SEED, WORLDS, folder=tmp_path, on_round=lambda: None)
    assert [str(wrong) for wrong in outcome.wrong] == []
    assert outcome.rounds == ROUNDS
    assert set(outcome.by_kind) == {kind.name for kind in KINDS}
    counts = outcome.counts
    assert counts.holds > ROUNDS
    assert min(counts.ended_by_faults, counts.stale_refused, counts.forged_refused) > 0


@pytest.mark.integration
@pytest.mark.timeout(300)
async def test_a_worker_that_checks_no_fence_is_found_out(tmp_path: Path) -> None:
    broken = Entries(worker=f"{ENTRIES}:worker_without_fences")
    outcome = await drill(4, SEED, 2, folder=tmp_path, on_round=lambda: None, kinds=kinds("TCP cut"), entries=broken)
    assert outcome.of(Rule.FORGED) > 0
    assert outcome.of(Rule.OVERLAP) > 0


@pytest.mark.integration
@pytest.mark.timeout(300)
async def test_a_holder_that_gives_nothing_back_to_a_registry_without_its_data_is_found_out(tmp_path: Path) -> None:
    broken = Entries(agent=f"{ENTRIES}:agent_that_adopts_nothing")
    lost = kinds("Redis restart, data lost")
    outcome = await drill(2, SEED, 2, folder=tmp_path, on_round=lambda: None, kinds=lost, entries=broken)
    assert outcome.of(Rule.LOST) + outcome.counts.not_judged > 0


@pytest.mark.integration
@pytest.mark.timeout(300)
async def test_a_holder_that_never_gives_up_is_found_out(tmp_path: Path) -> None:
    broken = Entries(agent=f"{ENTRIES}:agent_that_never_gives_up")
    hangs = [Kind("Redis hangs for long", 1, redis_hangs_for_long)]
    outcome = await drill(1, SEED, 1, folder=tmp_path, on_round=lambda: None, kinds=hangs, entries=broken)
    assert outcome.of(Rule.LATE) + outcome.counts.not_judged > 0


async def redis_hangs_for_long(world: World, rng: Random) -> None:
    await asyncio.sleep(3)  # in which calls begin
    with trouble(world, REDIS, spares_s=math.inf):
        world.redis.signal(signal.SIGSTOP)
        await asyncio.sleep(PARTITION_S + TOLERANCE_S + 4)
        world.redis.signal(signal.SIGCONT)


@pytest.mark.integration
async def test_a_world_that_cannot_be_kept_up_ends_the_drill_with_a_word(tmp_path: Path) -> None:
    broken = Entries(worker=f"{ENTRIES}:worker_that_wants_no_restart")
    with pytest.raises(StepFailed, match="of world1 has ended for good"):
        await drill(1, SEED, 1, folder=tmp_path, on_round=lambda: None, entries=broken)


def test_a_deck_holds_every_kind_in_its_share_and_is_the_same_for_the_same_seed() -> None:
    whole = sum(kind.share for kind in KINDS)
    cards = deck(KINDS, 2 * whole, Random(1))
    assert Counter(card.name for card in cards) == {kind.name: 2 * kind.share for kind in KINDS}
    assert cards == deck(KINDS, 2 * whole, Random(1))
    assert cards != deck(KINDS, 2 * whole, Random(2))
    assert len(deck(KINDS, 3, Random(1))) == 3
