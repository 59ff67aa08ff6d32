"""Real calls whose model hears the caller: agent, LLM worker, LiveKit and voice are real, and there is no stt."""

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from PIL import Image

from daemons.agent.camera import MOST_BYTES
from daemons.audio import Pcm
from ops.caller import Report, speech_end_ns, speech_start_ns, talk
from ops.robot import Robot, dial, happened
from tests.agent.omni_box import HearingServer, OmniBox, Received
from tests.llm import tiny_models
from tests.speech_samples import word_error_rate

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

QUESTION = "What is the capital of France?"
PARIS = "The capital of France is Paris."
HEARD_WER = 0.25  # text → speech → Opus → text
EVENT_S = 20.0
RED, BLUE = (230, 20, 20), (20, 20, 230)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def upstream() -> AsyncIterator[HearingServer]:
    async with HearingServer() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def box(
    upstream: HearingServer, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OmniBox]:
    folder = tmp_path_factory.mktemp("omni")
    async with OmniBox(redis_url, folder, llm_engine="openai", llm_upstream_url=upstream.url) as box:
        yield box


def speech_ms(pcm: Pcm) -> float:
    return (speech_end_ns(pcm) - speech_start_ns(pcm)) / 1e6


def red_and_blue(width: int, height: int) -> npt.NDArray[np.uint8]:
    """uint8 [height, width, 3]: red on the left, blue on the right."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = RED, BLUE
    return picture


def is_about(pixel: Any, colour: tuple[int, int, int]) -> bool:
    return all(abs(int(seen) - shown) < 60 for seen, shown in zip(pixel, colour, strict=True))


async def caption(robot: Robot) -> str:
    return str((await robot.event(happened("captioned"), EVENT_S))["text"])


def of(upstream: HearingServer, task: str) -> list[Received]:
    return [each for each in upstream.received if each.task == task]


def stt_events(report: Report) -> list[str]:
    return [event["event"] for turn in report.turns for event in turn.events if event["event"].startswith("stt")]


async def test_the_caller_s_voice_reaches_the_model_and_its_words_the_page(
    box: OmniBox, upstream: HearingServer
) -> None:
    upstream.received.clear()
    question = await box.says(QUESTION)
    async with dial(box.url) as robot:
        report = await talk(robot, [question])
        assert report.turns[0].answer == PARIS
        assert word_error_rate(QUESTION, await caption(robot)) <= HEARD_WER
    answer, words = of(upstream, "answer")[-1], of(upstream, "words")[-1]
    assert (answer.sounds, answer.pcm.rate_hz) == (1, 16_000)
    assert word_error_rate(QUESTION, answer.words) <= HEARD_WER
    assert abs(speech_ms(answer.pcm) - speech_ms(question.pcm)) < 300
    assert answer.pcm.duration_ms < question.pcm.duration_ms + 1000
    assert words.body["messages"][-1]["content"][0] == answer.body["messages"][-1]["content"][0], "the same sound"
    assert stt_events(report) == []


async def test_in_the_lane_dual_a_turn_is_understood_too_and_its_picture_goes_with_it(
    box: OmniBox, upstream: HearingServer
) -> None:
    upstream.received.clear()
    box.write_persona(lane='"dual"')
    async with dial(box.url, camera=True) as robot:
        await robot.show(red_and_blue(1280, 720))
        report = await talk(robot, [await box.says(QUESTION)])
        assert report.turns[0].answer == PARIS
        understood = await robot.event(happened("understood"), EVENT_S)
        assert word_error_rate(QUESTION, understood["transcript"]) <= HEARD_WER
        assert (understood["language"], understood["emotion"]) == ("en", "curious")
        assert await caption(robot) == understood["transcript"]
    assert of(upstream, "words") == []
    assert of(upstream, "understanding")[-1].pictures == []
    [jpeg] = of(upstream, "answer")[-1].pictures
    assert len(jpeg) <= MOST_BYTES
    with Image.open(io.BytesIO(jpeg)) as picture:
        assert (picture.format, picture.size) == ("JPEG", (512, 288))
        left, right = (picture.convert("RGB").getpixel((x, 144)) for x in (100, 412))
    assert is_about(left, RED)
    assert is_about(right, BLUE)


@pytest.mark.timeout(300)
async def test_a_model_on_torch_hears_a_call(redis_url: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed; make an environment from requirements-torch.lock")
    folder = tiny_models.listener(tmp_path / "listener")
    async with OmniBox(redis_url, tmp_path, llm_engine="transformers", llm_model=folder) as box:
        box.write_persona(max_tokens="16")  # of random words
        async with dial(box.url) as robot:
            report = await talk(robot, [await box.says(QUESTION)])
            assert report.turns[0].answer
            assert await caption(robot)
            assert stt_events(report) == []
