"""The whole drill: a few rounds against the product, and against workers that are broken on purpose."""

from pathlib import Path

import pytest

from daemons.wire import Role
from ops.drill.disconnects import run
from ops.drill.disconnects.report import STOP_LIMITS_MS, report
from ops.drill.disconnects.run import drill
from ops.drill.disconnects.wrong import Rule

ROUNDS, SEED = 30, 7
BROKEN = "tests.drill.disconnects.broken"
QUICK = {"llm_model": "smollm2-135m", "llm_context_tokens": 1024}


def idle() -> None:
    pass


@pytest.mark.integration
@pytest.mark.timeout(300)
async def test_crowds_and_disconnects_leave_nothing_behind(tmp_path: Path) -> None:
    outcome = await drill(ROUNDS, 1, SEED, folder=tmp_path, on_step=idle, crowds=1, settings=QUICK)
    assert [str(wrong) for wrong in outcome.wrong] == []
    lefts = [left for gone in outcome.gone.values() for left in gone.lefts]
    assert len(lefts) == ROUNDS
    assert sum(left.was_cut_off for left in lefts) > 0
    assert sum(left.refused for left in lefts) > 0
    assert all(outcome.stops_ms.values()), "at every door a close was timed; how long it took is not for a busy machine"
    missed = [bound.name for bound in report(outcome, ROUNDS).bounds if not bound.held and "P95" not in bound.name]
    assert missed == []


@pytest.mark.integration
@pytest.mark.timeout(120)
async def test_a_worker_that_keeps_the_places_of_who_left_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SETTLE_S", 1.0)
    program: dict[Role, tuple[str, ...]] = {"tts": (BROKEN, "keeps-places")}
    outcome = await drill(25, 0, SEED, folder=tmp_path, on_step=idle, roles=["tts"], crowds=0, programs=program)
    assert any("direct_places" in str(wrong) for wrong in outcome.wrong if wrong.rule is Rule.LEFT)
    assert outcome.of(Rule.CHANGED) > 0
    assert not report(outcome, 25).ok


@pytest.mark.integration
@pytest.mark.timeout(120)
async def test_a_worker_that_works_on_for_who_left_is_found_out(tmp_path: Path) -> None:
    program: dict[Role, tuple[str, ...]] = {"tts": (BROKEN, "works-on")}
    outcome = await drill(5, 1, SEED, folder=tmp_path, on_step=idle, roles=["tts"], crowds=0, programs=program)
    whole = "tts POST /v1/audio/speech (wav)"
    assert max(outcome.stops_ms[whole]) > STOP_LIMITS_MS["tts"]
    assert [bound.name for bound in report(outcome, 5).bounds if not bound.held and whole in bound.name] != []
