"""Audio to windows: stamps, gaps, pre-roll. The VAD of these tests hears speech in whatever is not silence."""

import numpy as np
import pytest

from daemons.agent.hearing import GAP_MS, JITTER_MS, PRE_ROLL_MS, Hearing
from daemons.agent.turn import Window
from daemons.audio import STT_RATE_HZ, FloatSamples, Samples
from daemons.clock import FakeClock
from daemons.vad import WINDOW_MS, WINDOW_SAMPLES


def loud(window: FloatSamples) -> float:
    return float(np.abs(window).max() > 0.1)


class Line:
    """Delivers audio as the room does: 10 ms at a time, as it is spoken."""

    def __init__(self) -> None:
        self.clock = FakeClock(start_ns=10**12)
        self.hearing = Hearing(loud, self.clock)
        self.windows: list[Window] = []

    async def speak(self, ms: float, value: int) -> None:
        samples = np.full(round(ms * STT_RATE_HZ / 1000), value, np.int16)
        for at in range(0, len(samples), 160):
            await self.clock.advance(0.010)
            self.deliver(samples[at : at + 160])

    def deliver(self, samples: Samples) -> None:
        self.windows += self.hearing.push(samples)

    @property
    def now_ms(self) -> float:
        return self.clock.now_ns() / 1e6


@pytest.fixture
def line() -> Line:
    return Line()


async def test_windows_come_each_32_ms_and_end_now(line: Line) -> None:
    await line.speak(3200, 0)
    assert len(line.windows) == 100
    steps = np.diff([window.at_ms for window in line.windows])
    assert np.abs(steps - WINDOW_MS).max() < 10.1
    assert line.windows[-1].at_ms == pytest.approx(line.now_ms, abs=JITTER_MS)


async def test_speech_is_told_from_silence(line: Line) -> None:
    await line.speak(320, 0)
    await line.speak(320, 8000)
    speech = [window.speech for window in line.windows]
    assert speech == [False] * 10 + [True] * 10


async def test_an_utterance_begins_before_its_onset(line: Line) -> None:
    await line.speak(640, 1)
    await line.speak(64, 8000)
    line.hearing.open()
    await line.speak(320, 8000)
    utterance = line.hearing.utterance()
    quiet = int(np.count_nonzero(utterance == 1))
    assert quiet >= PRE_ROLL_MS * STT_RATE_HZ / 1000
    assert int(np.count_nonzero(utterance == 8000)) == 12 * WINDOW_SAMPLES
    line.hearing.drop()
    assert len(line.hearing.utterance()) == 0


async def test_missing_audio_is_silence(line: Line) -> None:
    await line.speak(320, 8000)
    assert line.windows[-1].speech
    await line.clock.advance((GAP_MS + 50) / 1000)
    (window,) = line.hearing.tick()
    assert not window.speech
    assert window.at_ms == line.now_ms
    assert list(line.hearing.tick()) == []


async def test_a_late_start_does_not_shift_the_time_line(line: Line) -> None:
    """Audio that begins just short of a gap after the last window is stamped with when it came."""
    await line.speak(320, 0)
    await line.clock.advance((GAP_MS - 50) / 1000)
    await line.speak(320, 8000)
    assert line.windows[-1].at_ms == pytest.approx(line.now_ms, abs=JITTER_MS + WINDOW_MS)


async def test_a_burst_after_a_stall_never_comes_from_the_future(line: Line) -> None:
    await line.speak(320, 0)
    await line.clock.advance(0.2)
    line.deliver(np.zeros(round(0.2 * STT_RATE_HZ), np.int16))
    line.deliver(np.zeros(round(0.2 * STT_RATE_HZ), np.int16))
    assert max(window.at_ms for window in line.windows) <= line.now_ms
