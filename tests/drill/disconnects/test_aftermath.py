from dataclasses import replace

import pytest

from ops.drill.disconnects.aftermath import contradictions, growth_kb, is_settled, left_over
from ops.drill.disconnects.client import Manner
from ops.drill.disconnects.doors import tts_doors
from ops.drill.disconnects.leaving import Left, Moment, Plan
from ops.drill.disconnects.watch import State
from ops.metrics import Metrics

QUIET = State(0, 0, 0, 0, 0, tasks=9, threads=12, files=30, memory_bytes=10**8)
DOOR = tts_doors("One.", "One.")[0]


@pytest.mark.parametrize(
    "left",
    [
        *({name: 1} for name in ("in_flight", "direct_places", "call_places", "leases", "connections")),
        *({"tasks": 11}, {"threads": 25}, {"files": 40}),
    ],
)
def test_whatever_is_left_is_named(left: dict[str, int]) -> None:
    found = list(left_over(QUIET, replace(QUIET, **left)))
    assert len(found) == 1
    assert found[0].startswith(next(iter(left)))
    assert not is_settled(QUIET, replace(QUIET, **left))


def test_a_worker_that_is_as_before_has_settled() -> None:
    assert is_settled(QUIET, replace(QUIET, memory_bytes=2 * 10**8))


def test_growth_is_that_of_the_second_half() -> None:
    flat_then = [(n, 10**8 + 10**6 * n) for n in range(0, 50, 5)] + [(n, 15 * 10**7) for n in range(50, 100, 5)]
    assert growth_kb(flat_then) == pytest.approx(0)
    one_step = [(n, 10**8 + 10**7 * (n > 80)) for n in range(0, 100, 5)]
    assert growth_kb(one_step) == pytest.approx(0)
    assert growth_kb([(n, 10**8 + 1024 * 30 * n) for n in range(0, 100, 5)]) == pytest.approx(30)


def left(*, has_asked: bool = False, has_heard: bool = False, has_all: bool = False) -> Left:
    plan = Plan(1, DOOR, False, Moment.CHUNK, Manner.RESET, share=0.5, chunks=1, delay_s=0.0, silence_s=0.0)
    return Left(plan, status=200, has_asked=has_asked, has_heard=has_heard, has_all=has_all)


def metrics(**ended: float) -> Metrics:
    streams: Metrics = {("callbox_streams_ended_total", (how,)): count for how, count in ended.items()}
    return {("callbox_requests_total", ("direct",)): sum(ended.values()), **streams}


def test_metrics_that_tell_what_clients_did_contradict_nothing() -> None:
    lefts = [left(has_asked=True, has_heard=True), left(has_asked=True, has_all=True), left()]
    assert list(contradictions("llm", lefts, metrics(), metrics(client_gone=1, finished=1))) == []
    assert list(contradictions("llm", lefts, metrics(), metrics(client_gone=2, finished=1))) == [], "who knows"


@pytest.mark.parametrize(
    ("ended", "said"),
    [
        ({"finished": 2}, "0 streams whose client went away are counted; there were 1 to 2"),
        ({"client_gone": 3, "finished": 1}, "3 streams whose client went away are counted"),
        ({"client_gone": 1}, "0 streams are counted as finished; 1 clients"),
        ({"client_gone": 1, "finished": 1, "failed": 1}, "'failed': 1"),
    ],
)
def test_metrics_that_tell_something_else_are_named(ended: dict[str, float], said: str) -> None:
    lefts = [left(has_asked=True, has_heard=True), left(has_asked=True, has_all=True), left()]
    assert said in "; ".join(contradictions("tts", lefts, metrics(), metrics(**ended)))


def test_a_place_that_no_stream_gave_back_is_named() -> None:
    counted = metrics(client_gone=1) | {("callbox_requests_total", ("call",)): 1}
    assert "2 requests were admitted, and 1 streams ended" in "; ".join(
        contradictions("llm", [left(has_asked=True)], metrics(), counted)
    )


def test_a_refusal_that_is_not_for_want_of_a_place_is_named() -> None:
    counted: Metrics = {("callbox_refusals_total", ("Fenced",)): 1}
    assert "Fenced" in "; ".join(contradictions("tts", [], {}, counted))
