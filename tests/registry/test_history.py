"""Sixteen clients at once: in the order of the scripts' sequence, what each was told is one client's story."""

from dataclasses import replace

import pytest

from daemons.registry import Acquired, AcquireStatus, ReleaseStatus
from ops.drill.registry.clients import Op
from ops.drill.registry.history import Done, Replay, many
from ops.drill.registry.sides import START_MS
from ops.drill.registry.story import Failed
from ops.drill.registry.tally import Tally

CLIENTS, OPERATIONS = 16, 12_000


def done(seq: int, asked_ns: int, answered_ns: int, name: str = "cancel", answer: object = ReleaseStatus.OK) -> Done:
    return Done(seq, asked_ns, answered_ns, START_MS, Op(name, ("c",)), answer)


def replay(*history: Done) -> int:
    """How many were played to the end."""
    story = Replay()
    for each in history:
        story.add(each)
    story.finish()
    return story.played


@pytest.mark.integration
@pytest.mark.parametrize("seed", [1, 2])
async def test_sixteen_clients_see_one_registry(redis_url: str, seed: int) -> None:
    tally = Tally()
    await many(redis_url, CLIENTS, OPERATIONS // 2, seed, tally, lambda _: None)
    assert tally.operations == OPERATIONS // 2
    told = {name for name, _, count in tally.lines() if count}
    assert {"register", "acquire", "renew", "swap", "adopt", "release", "drain", "events", "snapshot"} <= told


def test_answers_may_arrive_in_any_order() -> None:
    assert replay(done(3, 30, 60), done(1, 10, 61), done(2, 10, 62)) == 3


def test_who_was_answered_first_stands_first() -> None:
    with pytest.raises(Failed, match="before an operation with a lower number was asked"):
        replay(done(2, 10, 20), done(1, 30, 40))


def test_who_overlaps_may_stand_in_either_order() -> None:
    assert replay(done(2, 10, 30), done(1, 20, 40)) == 2


def test_nobody_has_a_place_twice() -> None:
    with pytest.raises(Failed, match="two were told #1"):
        replay(done(1, 10, 20), replace(done(1, 10, 20)))


def test_every_place_is_somebodys() -> None:
    with pytest.raises(Failed, match="nobody was told #2, but somebody was told #3"):
        replay(done(1, 10, 20), done(3, 30, 40))


def test_an_answer_that_the_model_does_not_give_is_told_with_what_came_before() -> None:
    wrong = Acquired(AcquireStatus.GRANTED, fence=7)
    asked = Op("acquire", ("c", ("tts",), 15_000, 0))
    with pytest.raises(Failed, match=r"cancel\('c'\)(.|\n)*the registry: #2 Acquired(.|\n)*UNAVAILABLE"):
        replay(done(1, 10, 20), Done(2, 30, 40, START_MS, asked, wrong))
