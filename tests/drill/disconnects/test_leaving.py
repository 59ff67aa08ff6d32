from collections import Counter

from ops.drill.disconnects.client import Manner, framed
from ops.drill.disconnects.doors import llm_doors, tts_doors
from ops.drill.disconnects.leaving import MOST_CHUNKS, Left, Moment, Plan

DOORS = [*tts_doors("One.", "One."), *llm_doors("Hello", 4)]


def plan(moment: Moment, manner: Manner, door: int = 0) -> Plan:
    return Plan(1, DOORS[door], False, moment, manner, share=0.5, chunks=1, delay_s=0.0, silence_s=0.0)


def test_the_same_seed_draws_the_same_ways_to_leave() -> None:
    drawn = [Plan.draw(3, number, DOORS) for number in range(50)]
    assert drawn == [Plan.draw(3, number, DOORS) for number in range(50)]
    assert drawn != [Plan.draw(4, number, DOORS) for number in range(50)]


def test_every_door_moment_and_manner_has_its_share() -> None:
    drawn = [Plan.draw(1, number, DOORS) for number in range(100 * len(DOORS))]
    assert set(Counter(one.door.name for one in drawn).values()) == {100}
    assert {one.moment for one in drawn} == set(Moment)
    assert {one.manner for one in drawn} == set(Manner)
    assert all(1 <= one.chunks <= MOST_CHUNKS for one in drawn)
    assert 0 < sum(one.of_call for one in drawn) < len(drawn) / 2


def test_an_answer_was_surely_cut_off_when_more_of_it_was_to_come_than_lies_in_buffers() -> None:
    bulky, small = 0, 5
    cut = {"status": 200, "has_asked": True, "has_heard": True}
    assert Left(plan(Moment.CHUNK, Manner.RESET, bulky), **cut).was_cut_off  # type: ignore[arg-type]
    assert not Left(plan(Moment.CHUNK, Manner.RESET, small), **cut).was_cut_off  # type: ignore[arg-type]
    assert not Left(plan(Moment.CHUNK, Manner.RESET, bulky), status=200).was_cut_off
    assert not Left(plan(Moment.END, Manner.RESET, bulky), **cut, has_all=True).was_cut_off  # type: ignore[arg-type]


def test_a_socket_that_is_closed_in_words_is_not_cut_off() -> None:
    live = 3
    left = Left(plan(Moment.CHUNK, Manner.CLOSE, live), status=101, has_asked=True, has_heard=True)
    assert not left.was_cut_off
    assert Left(plan(Moment.CHUNK, Manner.DROP, live), status=101, has_asked=True, has_heard=True).was_cut_off


def test_frames_are_those_of_the_rfc() -> None:
    mask = bytes(4)
    assert framed("Hello") == b"\x81\x85" + mask + b"Hello"  # RFC 6455, 5.7, with another mask
    assert framed(bytes(256))[:8] == b"\x82\xfe\x01\x00" + mask
    assert framed(bytes(65536))[:14] == b"\x82\xff" + (65536).to_bytes(8, "big") + mask
