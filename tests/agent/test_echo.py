"""The agent's voice leaks from a loudspeaker into the microphone; recorded speech plays both parts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from daemons.agent.echo import ALIKE, Echo, likeness
from daemons.agent.hearing import Hearing
from daemons.audio import STT_RATE_HZ, TTS_RATE_HZ, Pcm, Samples, to_int16
from daemons.clock import FakeClock
from daemons.models import model_dir
from daemons.settings import Settings
from daemons.vad import WINDOW_SAMPLES, SileroVad
from tests.speech_samples import librivox, needs_librivox

SECONDS = 12
CALLER_SPEAKS_S = 8.0
CALLER_S = 3.0
ROOM_NOISE = 10.0
FRAME_S = 0.02
Signal = npt.NDArray[np.float64]


def noise(length: int, seed: int) -> Signal:
    return np.random.default_rng(seed).normal(0, 1000, length)


def test_a_delayed_softer_copy_is_alike_and_anything_else_is_not() -> None:
    played = noise(12_000, 0)
    assert likeness(played[5000:9000] / 20, played) > 0.99
    assert likeness(-played[:4000], played) > 0.99
    assert likeness(noise(4000, 1), played) < 0.1
    assert likeness(np.zeros(4000), played) == 0
    assert likeness(noise(4000, 1), np.zeros(12_000)) == 0


@pytest.mark.parametrize(("softer", "alike"), [(1.0, True), (0.5, True), (0.2, False)])
def test_a_caller_who_is_louder_than_the_echo_is_not_taken_for_it(softer: float, alike: bool) -> None:
    played = noise(12_000, 0)
    assert (likeness(played[5000:9000] * softer + noise(4000, 1), played) >= ALIKE) == alike


async def test_what_was_played_long_ago_is_forgotten() -> None:
    clock = FakeClock(start_ns=10**12)
    echo = Echo(clock)
    played = noise(TTS_RATE_HZ, 0).astype(np.int16)
    echo.play(played)
    await clock.advance(1)
    echo.hear(Pcm(played, TTS_RATE_HZ).resampled(STT_RATE_HZ).samples)
    assert echo.is_heard()
    await clock.advance(3600)
    assert not echo.is_heard()


async def test_what_is_taken_for_an_echo_is_no_speech_and_stays_in_the_utterance() -> None:
    """A caller's vowel may resemble what was said before; without it the words would be others."""
    clock = FakeClock(start_ns=10**12)
    hearing = Hearing(lambda _: 1.0, clock)
    played = noise(TTS_RATE_HZ, 0).astype(np.int16)
    hearing.plays(played)
    await clock.advance(1)
    heard = Pcm(played, TTS_RATE_HZ).resampled(STT_RATE_HZ).samples
    heard = heard[: len(heard) // WINDOW_SAMPLES * WINDOW_SAMPLES]
    hearing.open()
    windows = list(hearing.push(heard))
    assert not any(window.speech for window in windows[2:])
    assert np.array_equal(hearing.utterance(), heard)


@pytest.fixture(scope="module")
def voices() -> tuple[Samples, Samples]:
    """The agent's, int16 at 24 kHz, and the caller's, int16 at 16 kHz."""
    clips = [Pcm(to_int16(samples), STT_RATE_HZ) for samples, _ in librivox()]
    agent = np.concatenate([clip.resampled(TTS_RATE_HZ).samples for clip in clips[:3]])[: SECONDS * TTS_RATE_HZ]
    return agent, clips[3].samples[: round(CALLER_S * STT_RATE_HZ)]


@dataclass(frozen=True)
class Path:
    """From the agent to its own ear."""

    leak_db: float
    delays_ms: tuple[int, ...] = (120,)  # one after another, each for as long
    reverb_s: float = 0.0  # until the room is 60 dB softer; its walls are as loud as the loudspeaker

    def __call__(self, agent: Samples) -> Signal:
        loudspeaker = Pcm(agent, TTS_RATE_HZ).resampled(STT_RATE_HZ).samples.astype(np.float64)
        if self.reverb_s:
            seconds = np.arange(round(self.reverb_s * STT_RATE_HZ)) / STT_RATE_HZ
            walls = np.random.default_rng(0).normal(0, 1, len(seconds)) * 10 ** (-3 * seconds / self.reverb_s)
            walls /= np.sqrt(np.sum(walls**2))
            loudspeaker += np.convolve(loudspeaker, walls)[: len(loudspeaker)]
        echo = np.zeros_like(loudspeaker)
        each = -(-len(echo) // len(self.delays_ms))
        for index, delay_ms in enumerate(self.delays_ms):
            delayed = np.concatenate([np.zeros(delay_ms * STT_RATE_HZ // 1000), loudspeaker])
            echo[index * each : (index + 1) * each] = delayed[: len(echo)][index * each : (index + 1) * each]
        return echo * 10 ** (self.leak_db / 20)


async def speech(agent: Samples, echo: Signal | None, caller: Samples | None) -> list[bool]:
    """For each window of SECONDS, whether the caller speaks: the agent does all the time."""
    heard = np.random.default_rng(0).normal(0, ROOM_NOISE, SECONDS * STT_RATE_HZ)
    if echo is not None:
        heard[: len(echo)] += echo
    if caller is not None:
        at = round(CALLER_SPEAKS_S * STT_RATE_HZ)
        heard[at : at + len(caller)] += caller
    microphone = np.clip(heard, -32768, 32767).astype(np.int16)
    given = Settings()
    clock = FakeClock(start_ns=10**12)
    hearing = Hearing(SileroVad(model_dir(given, given.vad_model) / "silero_vad.onnx"), clock)
    found: list[bool] = []
    for index in range(round(SECONDS / FRAME_S)):
        await clock.advance(FRAME_S)
        hearing.plays(agent[round(index * FRAME_S * TTS_RATE_HZ) :][: round(FRAME_S * TTS_RATE_HZ)])
        frame = microphone[round(index * FRAME_S * STT_RATE_HZ) :][: round(FRAME_S * STT_RATE_HZ)]
        found += [window.speech for window in hearing.push(frame)]
    return found


def share(windows: list[bool], from_s: float, to_s: float) -> float:
    first, last = (round(at * STT_RATE_HZ / WINDOW_SAMPLES) for at in (from_s, to_s))
    return float(np.mean(windows[first:last]))


PATHS = [
    Path(-20.0),
    Path(-30.0),
    Path(-40.0),
    Path(-20.0, (350,)),
    Path(-20.0, (800,)),
    Path(-20.0, (120, 180, 150, 240, 200)),
    Path(-20.0, reverb_s=0.5),
]


@pytest.mark.integration
@needs_librivox
@pytest.mark.parametrize("path", PATHS)
async def test_the_agent_does_not_hear_itself_from_its_first_word_on(
    voices: tuple[Samples, Samples], path: Path
) -> None:
    agent, _ = voices
    hearing = await speech(np.zeros_like(agent), path(agent), None)
    assert share(hearing, 0, SECONDS) > 0.5, "it would"
    assert share(await speech(agent, path(agent), None), 0, SECONDS) < 0.05


@pytest.mark.integration
@needs_librivox
@pytest.mark.parametrize("path", [None, *PATHS])
async def test_the_caller_is_heard_over_the_agent_as_without_it(
    voices: tuple[Samples, Samples], path: Path | None
) -> None:
    agent, caller = voices
    echo = None if path is None else path(agent)
    alone = await speech(np.zeros_like(agent), None, caller)
    over_it = await speech(agent, echo, caller)
    first_s, last_s = CALLER_SPEAKS_S, CALLER_SPEAKS_S + CALLER_S
    assert share(alone, first_s, last_s) > 0.8
    assert share(over_it, first_s, last_s) > share(alone, first_s, last_s) - 0.1
    onset = next(index for index, is_speech in enumerate(alone) if is_speech)
    assert any(over_it[onset : onset + 3]), "within 64 ms of the same moment"
