"""A short bench of barge-in: the box yields to who interrupts it, and to nobody who coughs or says "okay"."""

import pytest

from ops.bench.barge_in import HEADSET, report, take
from ops.private_box import PrivateBox

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

LEAK_DB = -20.0
YIELDS_MS = 5000.0  # far above what is wanted, and far below the length of an answer


async def test_an_interruption_is_heeded_and_a_cough_and_a_backchannel_are_not(box: PrivateBox, persona: None) -> None:
    box.write_persona(max_sentences=4)
    done: list[int] = []
    taken = await take(box, 1, leaks_db=(LEAK_DB,), on_turn=done.append)
    assert done == [1]
    assert taken.sounds["leaks of -20 dB"] == 1
    assert sum(taken.sounds.values()) >= 2, "the others count only when the answer was not over before"
    assert not any(taken.cut_off.values())
    assert set(taken.silence_ms) == {HEADSET, "a leak of -20 dB"}
    assert all(0 < silence_ms < YIELDS_MS for [silence_ms] in taken.silence_ms.values())
    assert len(taken.answer_ms) == 2, "the interruptions themselves were answered"
    held = {bound.name: bound.held for bound in report(taken, "the box's own").bounds}
    assert held["answers ended by leaks of -20 dB, of 1"]
