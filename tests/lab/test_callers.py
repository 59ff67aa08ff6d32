"""What callers say is put together from its pieces, at the level and in the noise that the case wants."""

from typing import Any

import numpy as np
import pytest

from daemons.audio import Pcm, level_dbfs
from ops.lab.callers import Piece, Voice, pink_noise, speech_dbfs
from ops.lab.cases import Case, Line, Played
from ops.robot import FRAME_SAMPLES, RATE_HZ

HELLO, COUGH = "Hello.", Played(sound="cough")


def tone(seconds: float, peak: float = 0.1) -> Pcm:
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return Pcm((32767 * peak * np.sin(2 * np.pi * 440 * times)).astype(np.int16), RATE_HZ)


def voice(**case: Any) -> Voice:
    made: dict[Piece, Pcm] = {HELLO: tone(0.5), 0.25: Pcm(np.zeros(RATE_HZ // 4, np.int16), RATE_HZ), COUGH: tone(0.1)}
    return Voice(Case(name="case", suites=(), lines=(Line(say=(HELLO,)),), **case), made)


def test_pieces_follow_each_other() -> None:
    said = voice().says((HELLO, 0.25, COUGH))
    assert said.words == "Hello. … cough"
    assert said.pcm.duration_ms == 850
    assert not said.pcm.samples[RATE_HZ // 2 : RATE_HZ * 3 // 4].any()


@pytest.mark.parametrize("wanted_dbfs", [-42.0, -10.0])
def test_speech_is_as_loud_as_is_wanted_whatever_silence_is_in_it(wanted_dbfs: float) -> None:
    said = voice(level_dbfs=wanted_dbfs).says((HELLO, 0.25)).pcm.samples
    assert speech_dbfs(said) == pytest.approx(wanted_dbfs, abs=0.1)
    assert level_dbfs(said) < wanted_dbfs - 1


def test_noise_lies_as_far_below_speech_as_is_wanted_and_has_no_seam() -> None:
    noisy = voice(noise_snr_db=15)
    noise = noisy.noise
    assert len(noise) % FRAME_SAMPLES == 0
    assert speech_dbfs(tone(0.5).samples) - level_dbfs(noise) == pytest.approx(15, abs=0.1)
    steps = np.abs(np.diff(noise.astype(int)))
    assert abs(int(noise[0]) - int(noise[-1])) <= steps.max()
    assert not len(voice().noise)


def test_noise_is_softer_the_higher_it_is() -> None:
    spectrum = np.abs(np.fft.rfft(pink_noise(-30.0))) ** 2
    hz = np.fft.rfftfreq(2 * (len(spectrum) - 1), 1 / RATE_HZ)
    octaves = [spectrum[(hz >= low) & (hz < 2 * low)].sum() for low in (250, 1000, 4000)]
    assert max(octaves) / min(octaves) == pytest.approx(1, abs=0.2)  # pink: as much in each octave
