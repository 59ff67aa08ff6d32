"""A short bench of barge-in: the box yields to who interrupts it, and to nobody who coughs or says "okay"."""

import pytest

from ops.bench.barge_in import report, take
from ops.private_box import PrivateBox

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

YIELDS_MS = 5000.0  # far above what is wanted, and far below the length of an answer


async def test_an_interruption_is_heeded_and_a_cough_and_a_backchannel_are_not(box: PrivateBox, persona: None) -> None:
    box.write_persona(max_sentences=2)
    done: list[int] = []
    taken = await take(box, 1, leaks_db=(), on_turn=done.append)
    assert done == [1]
    assert taken.sounds == {"coughs": 1, "backchannels": 1}
    assert taken.cut_off == {"coughs": 0, "backchannels": 0}
    [silence_ms] = taken.silence_ms
    assert 0 < silence_ms < YIELDS_MS
    assert len(taken.answer_ms) == 1, "the interruption itself was answered"
    held = {bound.name: bound.held for bound in report(taken, "the box's own").bounds}
    assert held["answers ended by coughs, of 1"]
    assert held["answers ended by backchannels, of 1"]
