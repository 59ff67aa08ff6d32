"""A short soak: real calls one after another leave the box as it was, the agent's native threads included."""

import pytest

from ops.bench.soak.calls import Kind
from ops.bench.soak.report import report
from ops.bench.soak.run import soak
from ops.private_box import PrivateBox
from tests.e2e.test_faults import until_idle

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

KINDS = (Kind.LEAVES, Kind.LEAVES, Kind.ASKS)


async def test_calls_leave_nothing_behind(box: PrivateBox, persona: None) -> None:
    box.write_persona(max_sentences=1)
    assert await until_idle(box)
    done: list[int] = []
    taken = await soak(box, KINDS, done.append)
    assert sum(done) == len(KINDS)
    assert [outcome.wrong for outcome in taken.outcomes] == [""] * len(KINDS)
    assert taken.left == [""] * len(KINDS)
    threads = [look.footprints["agent"].threads for look in taken.looks]
    assert threads[-1] <= threads[0] + 1, "what LiveKit holds of a call goes when the call does"
    assert taken.looks[-1].tasks["agent"] == taken.looks[0].tasks["agent"]
    found = report(taken, "the box's own")
    assert found.samples["end of speech → first audio heard, last quarter"].n == 1
    held = {bound.name: bound.held for bound in found.bounds}
    assert held["calls that went wrong"]
    assert held["calls of which something was still held"]
