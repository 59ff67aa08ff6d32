"""How well the pieces of a sentence are joined: beside the same sentence said whole, at each place where two meet."""

import math
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from daemons.audio import TTS_RATE_HZ, Samples
from daemons.wire import TtsSegment
from ops.bench import waves

_CLOSES_SENTENCE = re.compile(r"[.!?…][\"'”’)]*$")
_PART_S = 0.4
_NEAR_MS = 20
_FOUND = 0.5


@dataclass(frozen=True, slots=True)
class Seam:
    """Differences to the sentence said whole, where two pieces of it meet; NaN where it cannot be told."""

    before: str
    after: str
    click: float  # as waves.click, by that of the whole where that is one too: an "s" begins no softer than a cut
    pause_ms: float
    level_db: float
    fall: float  # in semitones
    jump: float
    snr_db: float  # of the next 400 ms, as a copy of the whole


def seams(joined: Samples, segments: Iterable[TtsSegment], whole: Samples) -> list[Seam]:
    """Of one text. Ends of sentences are no seams."""
    found, pieces = [], list(segments)
    melody, whole_melody = waves.pitch_hz(joined), waves.pitch_hz(whole)
    for earlier, later in pairwise(pieces):
        if _CLOSES_SENTENCE.search(earlier.text) or not later.text:
            continue
        at = later.from_sample
        part = joined[at : at + round(_PART_S * TTS_RATE_HZ)]
        expected = round(at * len(whole) / len(joined))
        place, likeness = waves.place_in(whole, part, expected)
        if likeness < _FOUND:
            found.append(Seam(earlier.text, later.text, waves.click(joined, at), *[math.nan] * 5))
            continue
        here, there = waves.Melody.at(melody, at), waves.Melody.at(whole_melody, place)
        found.append(
            Seam(
                earlier.text,
                later.text,
                waves.click(joined, at) / max(1.0, waves.click(whole, place, _NEAR_MS)),
                waves.pause_ms(joined, at) - waves.pause_ms(whole, place),
                waves.level_step_db(joined, at) - waves.level_step_db(whole, place),
                here.fall - there.fall,
                here.jump - there.jump,
                waves.snr_in_db(part, whole, place),
            )
        )
    return found


def median_size(found: Iterable[Seam], what: Callable[[Seam], float]) -> float:
    """The median of the absolute values that could be told; NaN when none could."""
    sizes = [abs(what(seam)) for seam in found if not math.isnan(what(seam))]
    return statistics.median(sizes) if sizes else math.nan
