"""What a caller's wait consists of."""

import pytest

from ops.caller import Turn
from ops.lab.stages import ENDPOINTING, LLM, ON_ITS_WAY, SENT, STT, TTS, Span, spans
from tests.lab.kept_runs import traced


def test_stages_lie_where_they_were_and_may_overlap() -> None:
    assert spans(traced()) == [
        Span(ENDPOINTING, -20, 520),
        Span(STT, 5, 90),  # of the last take
        Span(LLM, 95, 280),
        Span(TTS, 330, 470),
        Span(SENT, 520, 530),  # sound that was made ahead waits for the commit
        Span(ON_ITS_WAY, 530, 640),
    ]


@pytest.mark.parametrize(
    ("without", "gone"), [("llm_first_token", {LLM}), ("first_frame_published", {SENT, ON_ITS_WAY})]
)
def test_a_stage_whose_event_is_missing_is_left_out(without: str, gone: set[str]) -> None:
    turn = traced()
    known = {span.stage for span in spans(turn)}
    events = [event for event in turn.events if event["event"] != without]
    assert {span.stage for span in spans(turn.model_copy(update={"events": events}))} == known - gone


def test_an_answer_that_nobody_heard_has_no_way_to_the_caller() -> None:
    assert ON_ITS_WAY not in {span.stage for span in spans(traced(first_audio_ms=None))}


def test_a_turn_without_a_trace_has_no_stages() -> None:
    turn: Turn = traced(first_audio_ms=None)
    assert spans(turn.model_copy(update={"events": []})) == []
