"""What the speech worker made of an answer, as playout sent it: what was cut off or held is no fault of the way."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from daemons.audio import TTS_RATE_HZ, Pcm

EDGE_SAMPLES = TTS_RATE_HZ * 30 // 1000  # how much less may have left than playout believes, when it is cut off


def as_played(made: Pcm, events: Iterable[dict[str, Any]]) -> Pcm:
    """`made` at TTS_RATE_HZ, with silence where it was held and no more of it than was surely sent.

    `events`: the turn's trace, in order.
    """
    parts, at, held_ns = [], 0, 0
    end, edge = len(made.samples), 0
    for event in events:
        match event["event"]:
            case "playout_held":
                parts.append(made.samples[at : event["played_samples"]])
                at, held_ns = event["played_samples"], event["t_ns"]
            case "playout_resumed" if held_ns:
                parts.append(np.zeros(round((event["t_ns"] - held_ns) * TTS_RATE_HZ / 1e9), np.int16))
                held_ns = 0
            case "last_frame_published":
                end, edge = event["played_samples"], EDGE_SAMPLES
    parts.append(made.samples[at : max(at, end)])
    played = np.concatenate(parts)
    return Pcm(played[: max(0, len(played) - edge)], made.rate_hz)
