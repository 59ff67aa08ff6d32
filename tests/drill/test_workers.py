"""The drill of workers that die in a call: one round of it, and that its rounds are all of them."""

import pytest

from ops.bench.turns import SMALL_MODEL
from ops.drill.workers import FAULTS, PHASES, ROLES, drill, rounds_of


def test_each_role_meets_each_fault_in_each_phase() -> None:
    count = len(ROLES) * len(FAULTS) * len(PHASES)
    assert len(set(rounds_of(count))) == count
    assert rounds_of(2 * count) == 2 * rounds_of(count)


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_a_call_outlives_the_death_of_its_ears() -> None:
    done: list[int] = []
    report = await drill(1, llm_model=SMALL_MODEL, on_round=done.append)
    assert done == [1]
    assert report.counts["calls lost"] == 0, report.facts
    assert report.counts["answers that came whole"] == 2
    assert report.samples["longest plain silence of a turn, worker killed"].n == 2
