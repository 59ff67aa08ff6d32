import asyncio
import threading

import numpy as np
import pytest

from daemons import settings
from daemons.agent.smart_turn import FILE, MOST_AT_ONCE, SmartTurn, TurnListener
from daemons.audio import STT_RATE_HZ, FloatSamples, Samples, to_int16
from daemons.errors import ConfigurationError
from daemons.models import model_dir
from daemons.settings import Settings
from tests.speech_samples import librivox, needs_librivox

UTTERANCE: Samples = np.zeros(STT_RATE_HZ, np.int16)


class Slow:
    """A model that answers when it is told to."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked: list[int] = []

    def __call__(self, samples: FloatSamples) -> float:
        self.asked.append(len(samples))
        assert self.may_answer.wait(10)
        return 0.75


async def test_who_would_wait_too_long_gets_no_answer() -> None:
    model = Slow()
    listener = TurnListener(model, limit_s=0.05)
    assert await listener.probability(UTTERANCE) is None
    model.may_answer.set()
    await asyncio.to_thread(listener.close)


async def test_the_line_is_short_and_who_leaves_it_makes_room() -> None:
    model = Slow()
    listener = TurnListener(model, limit_s=10)
    waiting = [asyncio.create_task(listener.probability(UTTERANCE)) for _ in range(MOST_AT_ONCE)]
    await asyncio.sleep(0.02)
    assert await listener.probability(UTTERANCE) is None
    waiting.pop().cancel()
    await asyncio.sleep(0)
    waiting.append(asyncio.create_task(listener.probability(UTTERANCE)))
    await asyncio.sleep(0.02)
    model.may_answer.set()
    assert await asyncio.gather(*waiting) == [0.75] * MOST_AT_ONCE
    assert len(model.asked) == MOST_AT_ONCE, "who was cancelled in the line is not heard"
    await asyncio.to_thread(listener.close)


async def test_only_the_end_of_a_long_utterance_is_heard() -> None:
    model = Slow()
    model.may_answer.set()
    listener = TurnListener(model)
    await listener.probability(np.zeros(60 * STT_RATE_HZ, np.int16))
    assert model.asked == [8 * STT_RATE_HZ]
    await asyncio.to_thread(listener.close)


async def test_a_box_may_do_without() -> None:
    assert await TurnListener.load(Settings(turn_model="none")) is None
    with pytest.raises(ConfigurationError, match="callbox models pull"):
        await TurnListener.load(Settings(turn_model="nobody-has-it"))


@pytest.mark.integration
@needs_librivox
async def test_a_whole_sentence_sounds_complete_and_half_of_it_does_not() -> None:
    listener = TurnListener(SmartTurn(model_dir(settings.load(), "smart-turn-v3.2") / FILE), limit_s=30)
    samples, words = librivox()[0]
    assert words.endswith("to do for them")
    spoken = to_int16(samples)
    whole = await listener.probability(spoken)
    half = await listener.probability(spoken[: 3 * STT_RATE_HZ])
    assert whole is not None
    assert half is not None
    assert whole > 0.8
    assert half < 0.3
    await asyncio.to_thread(listener.close)
