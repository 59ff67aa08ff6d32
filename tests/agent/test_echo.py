"""The agent's voice leaks from a loudspeaker into the microphone; recorded speech plays both parts."""

from collections.abc import Iterator

import numpy as np
import pytest

from daemons.agent.echo import EchoCanceller
from daemons.audio import STT_RATE_HZ, TTS_RATE_HZ, Pcm, Samples, level_dbfs, to_float, to_int16
from daemons.models import model_dir
from daemons.settings import Settings
from daemons.vad import WINDOW_SAMPLES, SileroVad
from tests.speech_samples import librivox, needs_librivox

pytestmark = [pytest.mark.integration, needs_librivox]

FRAME = STT_RATE_HZ // 100
SECONDS = 12
SETTLED_S = 2.0  # the canceller has learned the way by then
CALLER_SPEAKS_S = 8.0
ROOM_NOISE = 10.0


@pytest.fixture(scope="module")
def voices() -> tuple[Samples, Samples]:
    """The agent's, int16 at 24 kHz, and 3 s of the caller's, int16 at 16 kHz."""
    clips = [Pcm(to_int16(samples), STT_RATE_HZ) for samples, _ in librivox()]
    agent = np.concatenate([clip.resampled(TTS_RATE_HZ).samples for clip in clips[:3]])[: SECONDS * TTS_RATE_HZ]
    return agent, clips[3].samples[: 3 * STT_RATE_HZ]


def microphone(agent: Samples, caller: Samples, leak_db: float, delay_ms: int) -> Samples:
    """What it hears: room noise, the agent's voice later and softer, and from CALLER_SPEAKS_S on the caller."""
    loudspeaker = Pcm(agent, TTS_RATE_HZ).resampled(STT_RATE_HZ).samples.astype(np.float64)
    heard = np.random.default_rng(0).normal(0, ROOM_NOISE, len(loudspeaker))
    delay = delay_ms * STT_RATE_HZ // 1000
    heard[delay:] += loudspeaker[:-delay] * 10 ** (leak_db / 20)
    at = round(CALLER_SPEAKS_S * STT_RATE_HZ)
    heard[at : at + len(caller)] += caller
    return np.clip(heard, -32768, 32767).astype(np.int16)


def cleaned(agent: Samples, heard: Samples) -> Iterator[Samples]:
    canceller = EchoCanceller()
    played = agent.reshape(-1, TTS_RATE_HZ // 50)  # 20 ms, as playout sends it
    for index, frame in enumerate(heard[: len(heard) // FRAME * FRAME].reshape(-1, FRAME)):
        if index % 2 == 0 and index // 2 < len(played):
            canceller.play(played[index // 2])
        yield canceller.clean(frame)


def speech(samples: Samples, from_s: float, to_s: float) -> float:
    """The share of windows between these moments that sound like speech."""
    given = Settings()
    vad = SileroVad(model_dir(given, given.vad_model) / "silero_vad.onnx")
    count = len(samples) // WINDOW_SAMPLES
    windows = to_float(samples[: count * WINDOW_SAMPLES]).reshape(count, WINDOW_SAMPLES)
    heard = [vad(window) > 0.5 for window in windows]
    first, last = (round(at * STT_RATE_HZ / WINDOW_SAMPLES) for at in (from_s, to_s))
    return float(np.mean(heard[first:last]))


@pytest.mark.parametrize("leak_db", [-20.0, -30.0, -40.0])
@pytest.mark.parametrize("delay_ms", [120, 350])
def test_the_agent_does_not_hear_itself_and_hears_the_caller(
    voices: tuple[Samples, Samples], leak_db: float, delay_ms: int
) -> None:
    agent, caller = voices
    heard = microphone(agent, caller, leak_db, delay_ms)
    assert speech(heard, SETTLED_S, CALLER_SPEAKS_S) > 0.4, "it would hear itself"
    clean = np.concatenate(list(cleaned(agent, heard)))
    assert speech(clean, SETTLED_S, CALLER_SPEAKS_S) < 0.02
    assert speech(clean, CALLER_SPEAKS_S, CALLER_SPEAKS_S + 3) > 0.7


def test_a_caller_alone_is_left_as_they_are(voices: tuple[Samples, Samples]) -> None:
    _, caller = voices
    canceller = EchoCanceller()
    frames = caller[: len(caller) // FRAME * FRAME].reshape(-1, FRAME)
    clean = np.concatenate([canceller.clean(frame) for frame in frames])
    assert abs(speech(clean, 0, 3) - speech(caller, 0, 3)) < 0.05


def test_audio_that_comes_in_odd_pieces_is_cleaned_in_whole_frames() -> None:
    canceller = EchoCanceller()
    lengths = [len(canceller.clean(np.zeros(count, np.int16))) for count in (100, 100, 500)]
    assert lengths == [0, FRAME, 3 * FRAME]


def test_what_nobody_heard_for_long_is_forgotten() -> None:
    canceller = EchoCanceller()
    canceller.play(np.ones(10 * TTS_RATE_HZ, np.int16))
    assert len(canceller._played) == 50
    canceller.take_back(TTS_RATE_HZ // 10)
    assert len(canceller._played) == 40
    canceller.take_back(TTS_RATE_HZ)
    assert not canceller._played


def test_under_ambience_a_microphone_that_begins_late_hears_the_present() -> None:
    """Its echo comes 200 ms after its sound; a canceller that was half a second behind could not find it."""
    random = np.random.default_rng(0)
    played = random.normal(0, 2000, (600, TTS_RATE_HZ // 50)).astype(np.int16)
    loudspeaker = Pcm(played.reshape(-1), TTS_RATE_HZ).resampled(STT_RATE_HZ).samples
    heard = np.concatenate([np.zeros(STT_RATE_HZ // 5, np.int16), loudspeaker // 10])[: len(loudspeaker)]
    canceller = EchoCanceller()
    cleaned_frames = []
    for index, frame in enumerate(heard.reshape(-1, FRAME)):
        if index % 2 == 0:
            canceller.play(played[index // 2])
        if index >= 200:
            cleaned_frames.append(canceller.clean(frame))
    last = slice(-3 * STT_RATE_HZ, None)
    assert level_dbfs(np.concatenate(cleaned_frames)[last]) < level_dbfs(heard[last]) - 20
