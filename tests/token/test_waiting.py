import pytest

from daemons.registry import Event
from daemons.token.waiting import REMEMBERED_CALLS, CallLengths


def event(kind: str, call: str, at_s: float) -> Event:
    return Event(f"{at_s * 1000:.0f}-0", kind, 0, round(at_s * 1000), {"call": call})


def call_of(seconds: float, name: str = "c") -> tuple[Event, Event]:
    return event("granted", name, 100), event("released", name, 100 + seconds)


@pytest.fixture
def lengths() -> CallLengths:
    return CallLengths()


def test_nothing_is_promised_without_data(lengths: CallLengths) -> None:
    assert lengths.eta_s(1, 2) is None
    lengths.follow((event("granted", "c", 100), event("released", "somebody else", 110)))
    assert lengths.eta_s(1, 2) is None


def test_a_place_comes_each_time_a_call_of_usual_length_ends(lengths: CallLengths) -> None:
    for seconds in (30, 60, 600):
        lengths.follow(call_of(seconds))
    assert lengths.eta_s(1, 1) == 60
    assert lengths.eta_s(3, 1) == 180
    assert lengths.eta_s(1, 4) == 15


def test_a_lost_call_has_ended_too(lengths: CallLengths) -> None:
    lengths.follow((event("granted", "c", 100), event("lost", "c", 120), event("released", "c", 500)))
    assert lengths.eta_s(1, 1) == 20


def test_old_calls_are_forgotten(lengths: CallLengths) -> None:
    for seconds in [1000] * REMEMBERED_CALLS + [10] * REMEMBERED_CALLS:
        lengths.follow(call_of(seconds))
    assert lengths.eta_s(1, 1) == 10
