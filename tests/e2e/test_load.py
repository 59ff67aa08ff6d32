"""A short load: one call to the real agent with workers that answer from a script."""

import asyncio

import pytest

from ops.bench.load.report import report
from ops.bench.load.run import Box, climb_without_workers
from ops.bench.load.scripted import ANSWER, ROLES
from ops.private_box import PrivateBox

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SECONDS = 5.0


async def test_a_call_is_carried_by_the_agent_alone(box: PrivateBox) -> None:
    done: list[int] = []
    try:
        climb = await climb_without_workers(box, SECONDS, most=1, on_step=done.append)
    finally:
        await asyncio.to_thread(box.supervisorctl, "start", *ROLES)
        for role in ROLES:
            await asyncio.to_thread(box.wait_ready, role, other_than=0)
    [step] = climb.steps
    assert step.lost == []
    assert {answer.text for answer in step.answers} == {ANSWER}
    assert step.response_ms.median < 10_000
    assert 0 < step.spent.event_loop <= step.spent.by_program["agent"]
    assert step.spent.robots > 0
    [row] = next(iter(report({Box.AGENT_ALONE: climb}, SECONDS, "a script").tables.values()))
    assert row["calls"] == 1
