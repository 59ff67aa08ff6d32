"""The bench of answers asks real questions of a real box, with speculation and without."""

import pytest

from ops.bench import turns

TURNS = 2


@pytest.mark.e2e
@pytest.mark.timeout(300)
async def test_callers_are_answered_in_both_arms() -> None:
    done: list[int] = []
    report = await turns.measure(TURNS, arms=(True, False), llm_model=turns.SMALL_MODEL, on_turn=done.append)
    assert sum(done) == 2 * TURNS
    for arm in ("with speculation", "without"):
        heard = report.samples[f"end of speech → first audio heard, {arm}"]
        assert heard.n == TURNS
        assert 100 < heard.median < 10_000
        assert report.counts[f"turns cut off, {arm}"] == 0
        assert report.counts[f"CPU of llm, ms a turn, {arm}"] > 0
    assert report.counts["replies prepared early"] >= 1
    assert report.ok
