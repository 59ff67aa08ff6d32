"""What the speech worker made of an answer, as playout sent it: what was cut off or held is no fault of the way."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from daemons.audio import TTS_RATE_HZ, Pcm


def as_played(made: Pcm, events: Iterable[dict[str, Any]]) -> Pcm:
    """`made` at TTS_RATE_HZ, with silence where it was held and no more of it than was sent.

    `events`: the turn's trace, in order.
    """
    parts, at, held_ns = [], 0, 0
    end = len(made.samples)
    for event in events:
        match event["event"]:
            case "playout_held":
                parts.append(made.samples[at : event["played_samples"]])
                at, held_ns = event["played_samples"], event["t_ns"]
            case "playout_resumed" if held_ns:
                parts.append(np.zeros(round((event["t_ns"] - held_ns) * TTS_RATE_HZ / 1e9), np.int16))
                held_ns = 0
            case "last_frame_published":
                end = event["played_samples"]
    parts.append(made.samples[at : max(at, end)])
    return Pcm(np.concatenate(parts), made.rate_hz)
