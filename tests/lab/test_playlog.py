"""What was made of an answer, as it was sent."""

from typing import Any

import numpy as np

from daemons.audio import TTS_RATE_HZ, Pcm
from ops.lab.playlog import EDGE_SAMPLES, as_played

MADE = Pcm(np.arange(1, 24_001).astype(np.int16), TTS_RATE_HZ)


def event(name: str, at_s: float, played_samples: int | None = None) -> dict[str, Any]:
    data = {} if played_samples is None else {"played_samples": played_samples}
    return {"event": name, "t_ns": round(at_s * 1e9), **data}


def test_an_answer_that_nobody_touched_is_as_it_was_made() -> None:
    events = [event("first_frame_published", 1.0), event("reply_finished", 2.0)]
    assert np.array_equal(as_played(MADE, events).samples, MADE.samples)


def test_where_it_was_held_there_is_silence() -> None:
    events = [event("playout_held", 1.0, 4800), event("playout_resumed", 1.5)]
    played = as_played(MADE, events).samples
    assert np.array_equal(played, np.concatenate([MADE.samples[:4800], np.zeros(12_000), MADE.samples[4800:]]))


def test_of_one_that_was_ended_there_is_what_was_surely_sent() -> None:
    at_once = [event("cancel_requested", 1.0), event("last_frame_published", 1.0, 9600)]
    assert np.array_equal(as_played(MADE, at_once).samples, MADE.samples[: 9600 - EDGE_SAMPLES])
    held_first = [event("playout_held", 1.0, 4800), event("last_frame_published", 1.3, 4800)]
    assert np.array_equal(as_played(MADE, held_first).samples, MADE.samples[: 4800 - EDGE_SAMPLES])
    held_twice = [
        *(event("playout_held", 1.0, 4800), event("playout_resumed", 1.1)),
        *(event("playout_held", 2.0, 9600), event("last_frame_published", 2.2, 9600)),
    ]
    whole = np.concatenate([MADE.samples[:4800], np.zeros(2400), MADE.samples[4800 : 9600 - EDGE_SAMPLES]])
    assert np.array_equal(as_played(MADE, held_twice).samples, whole)


def test_of_one_that_was_ended_at_once_there_is_nothing() -> None:
    assert not len(as_played(MADE, [event("last_frame_published", 1.0, 480)]).samples)
