"""A call whose voice is Qwen3-TTS of tiny chance weights: what is heard is noise, and known sample by sample."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.signal import correlate

from daemons.audio import STT_RATE_HZ, TTS_RATE_HZ, Pcm, Samples, to_int16
from daemons.tts.voice import Limiter
from ops.private_box import PrivateBox
from ops.robot import Robot, dial, happened
from tests.lent_torch import lend_torch, needs_torch, run_with_torch
from tests.speech_samples import librivox, needs_librivox

GREETING = "Hello! What can I do for you?"
HEARD_S = 30.0
BAND_HZ = (200, 2000)
BLOCK = TTS_RATE_HZ * 240 // 1000
STALL = TTS_RATE_HZ  # of playout, on a machine that speaks more slowly than one listens
FRAME = TTS_RATE_HZ // 100

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180), needs_torch, needs_librivox]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3") / "tiny"
    run_with_torch("-m", "tests.tts.qwen3.checkpoint", folder, "--say", GREETING)
    return folder


@pytest.fixture(scope="module")
def box(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBox]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(lend_torch(tmp_path_factory.mktemp("lent") / "packages")))
        made = PrivateBox(slots=1, llm_model="smollm2-135m", tts_engine="qwen3", tts_model=checkpoint, tts_voice="ryan")
    with made as box:
        yield box


def in_band(samples: Samples) -> npt.NDArray[np.float64]:
    """What Opus keeps of noise: neither its offset nor its hiss."""
    spectrum = np.fft.rfft(samples.astype(np.float64))
    hz = np.fft.rfftfreq(len(samples), 1 / TTS_RATE_HZ)
    spectrum[(hz < BAND_HZ[0]) | (hz > BAND_HZ[1])] = 0
    return np.fft.irfft(spectrum, len(samples))


def likeness(heard: Samples, said: Samples) -> float:
    """The median correlation of blocks of what was said with what was heard in their place, or a stall from there."""
    ears, mouth = in_band(heard), in_band(said)
    begins = int(np.argmax(correlate(ears, mouth, "full", method="fft"))) - len(mouth) + 1
    starts = range(0, len(mouth) - BLOCK, BLOCK)
    return float(np.median([_correlation(ears, begins + start, mouth[start : start + BLOCK]) for start in starts]))


def _correlation(ears: npt.NDArray[np.float64], at: int, block: npt.NDArray[np.float64]) -> float:
    """Of `block` with what was heard around `at`, where they fit best."""
    near = ears[max(0, at - STALL) : max(0, at + len(block) + STALL)]
    if len(near) < len(block):
        return 0.0
    products = correlate(near, block, "valid", method="fft")
    summed = np.concatenate([[0.0], np.cumsum(near**2)])
    energies = summed[len(block) :] - summed[: len(products)]
    return float(np.max(products / np.sqrt(energies * np.sum(block**2) + 1e-9)))


def sounds_s(samples: Samples) -> float:
    """For how long it is not silent: a slow machine stalls now and then."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return float(np.count_nonzero(np.max(np.abs(frames), axis=1) > 300)) * FRAME / TTS_RATE_HZ


async def heard_of(robot: Robot, generation: int) -> Samples:
    await robot.event(happened("reply_finished", turn=generation), HEARD_S)
    await asyncio.sleep(0.5)
    return robot.heard.pcm().resampled(TTS_RATE_HZ).samples


async def test_what_the_room_hears_is_what_the_networks_say(box: PrivateBox, checkpoint: Path) -> None:
    said = Limiter(gain_db=0)(np.load(checkpoint / "said.npy"))
    async with dial(box.settings.door_url) as robot:
        greeting = await robot.event(happened("first_frame_published"), HEARD_S)
        heard = await heard_of(robot, greeting["turn"])
        copy, other = likeness(heard, said), likeness(heard, said[::-1].copy())
        print(f"\n{len(said) / TTS_RATE_HZ:.2f} s; correlation {copy:.2f}, with other noise {other:.2f}")
        assert copy > 0.6
        assert other < 0.4
        assert sounds_s(heard) == pytest.approx(sounds_s(said), abs=0.3)  # at a stall WebRTC makes some up


async def test_it_falls_silent_when_it_is_interrupted(box: PrivateBox) -> None:
    speech = Pcm(to_int16(librivox()[0][0][: 4 * STT_RATE_HZ]), STT_RATE_HZ)
    async with dial(box.settings.door_url) as robot:
        await robot.write("Tell me a long story about the sea, the wind and a dog, and then another one.")
        answer = await robot.event(happened("first_frame_published", turn=2), HEARD_S)
        await robot.say(speech)
        over = await robot.event(
            lambda event: event["event"] in ("last_frame_published", "reply_finished") and event["turn"] == 2, HEARD_S
        )
        assert over["event"] == "last_frame_published", "it was interrupted, and did not come to its end"
        assert over["t_ns"] > answer["t_ns"]
    assert "the engine failed" not in box.log("tts")
