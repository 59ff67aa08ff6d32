"""What an utterance is as a message, now and later."""

import base64

import numpy as np

from daemons.agent.said import LONGEST_S, UNWRITTEN, Spoken
from daemons.audio import STT_RATE_HZ, read_wav


def test_of_what_is_too_long_to_be_heard_the_end_counts() -> None:
    samples = np.arange(40 * STT_RATE_HZ, dtype=np.int32).astype(np.int16)
    spoken = Spoken.of(samples)
    heard = read_wav(base64.b64decode(spoken.wav_base64))
    assert heard.duration_ms == spoken.duration_ms == LONGEST_S * 1000
    assert np.array_equal(heard.samples, samples[-len(heard.samples) :])


def test_it_is_told_as_sound_then_not_at_all_and_in_words_once_they_are_known() -> None:
    spoken = Spoken.of(np.zeros(STT_RATE_HZ, np.int16), "data:image/jpeg;base64,AAAA")
    assert [part["type"] for part in spoken.asked] == ["input_audio", "image_url"]  # type: ignore[index]
    told = [spoken.told]
    spoken.fall_silent()
    told.append(spoken.told)
    spoken.words = "Hello."
    told.append(spoken.told)
    assert [part["type"] for part in told[0]] == ["input_audio"]  # type: ignore[index]
    assert told[1:] == [UNWRITTEN, "Hello."]
