import math

from daemons.wire import TtsSegment
from ops.bench.seams import median_size, seams
from tests.bench.test_waves import voice


def test_pieces_of_a_sentence_have_a_seam_and_sentences_have_none() -> None:
    whole = voice(2.0)
    segments = [
        TtsSegment(id=1, text="The next train", from_sample=0, samples=20_000),
        TtsSegment(id=1, text="leaves now.", from_sample=20_000, samples=10_000),
        TtsSegment(id=1, text="Then go.", from_sample=30_000, samples=18_000),
    ]
    [seam] = seams(whole, segments, whole)
    assert (seam.before, seam.after) == ("The next train", "leaves now.")
    assert abs(seam.level_db) < 0.5
    assert abs(seam.jump) < 0.3
    assert seam.pause_ms == 0
    assert seam.snr_db > 25  # the vowel is nearly the same from period to period
    assert median_size([seam], lambda one: one.level_db) == abs(seam.level_db)
    assert math.isnan(median_size([], lambda one: one.level_db))
