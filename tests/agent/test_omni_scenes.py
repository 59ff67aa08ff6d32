"""Conversations with a model that hears the caller itself, and lanes that understand besides answering."""

import base64
import json
from typing import Any

import pytest

from daemons.agent.background import MOST_TRIES
from daemons.agent.conversation import UNWRITTEN as UNWRITTEN_CAPTION
from daemons.agent.hearing import PRE_ROLL_MS
from daemons.agent.said import LONGEST_S, UNWRITTEN
from daemons.audio import read_wav
from daemons.doors import MAX_BODY_BYTES
from daemons.llm.chat import MAX_MEDIA_BYTES, ChatBody
from daemons.llm.generation import OMNI
from tests.agent.scene import Scene
from tests.agent.test_scenes import PARIS, STORY

QUESTION = "What is the capital of France?"


def sounds(body: dict[str, Any]) -> list[str]:
    """Every sound of a request, as it is sent."""
    contents = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return [part["input_audio"]["data"] for content in contents for part in content if part["type"] == "input_audio"]


def events(scene: Scene, name: str) -> list[dict[str, Any]]:
    return [event for event in scene.events if event["event"] == name]


# The caller's voice goes to the model


@pytest.mark.parametrize("speculation", [True, False])
async def test_the_model_hears_the_question_and_nobody_transcribes(speculation: bool) -> None:
    async with Scene(voice=0.99, omni=True, speculation=speculation) as scene:
        scene.workers.answers["France"] = PARIS
        await scene.pauses(PRE_ROLL_MS / 1000)  # so that there is as much before it
        await scene.says(QUESTION, 1.5)
        await scene.pauses(5)
        assert scene.heard() == [PARIS]
        assert not [entry for _, entry in scene.workers.log if entry.startswith("stt")]
        [body] = scene.workers.asked
        ChatBody.model_validate(body).generation(OMNI)
        [part] = body["messages"][-1]["content"]
        wav = read_wav(base64.b64decode(part["input_audio"]["data"]))
        assert wav.rate_hz == 16_000
        assert 1500 + PRE_ROLL_MS / 2 < wav.duration_ms < 1500 + PRE_ROLL_MS + 300


async def test_the_caption_comes_after_the_answer_was_written_in_the_same_segment() -> None:
    async with Scene(voice=0.99, omni=True) as scene:
        scene.workers.answers["France"] = PARIS
        await scene.says(QUESTION)
        await scene.pauses(0.6)
        assert scene.page.captions["caller-1"] == UNWRITTEN_CAPTION
        await scene.pauses(3)
        assert scene.page.captions == {"caller-1": QUESTION, "agent-1": PARIS}
        assert scene.when("captioned") > scene.when("reply_written")
        assert [entry for at_ms, entry in scene.workers.log if at_ms >= scene.when("reply_written")] == [
            "llm speculative",
            *["llm speculative"] * len(QUESTION.split()),
        ]


async def test_once_its_words_are_known_a_turn_is_remembered_in_them() -> None:
    async with Scene(voice=0.99, omni=True) as scene:
        for line in (QUESTION, "And of Italy?"):
            await scene.says(line)
            await scene.pauses(6)
        shown = [message["content"] for message in scene.workers.asked[-1]["messages"]]
        assert shown[-3:-1] == [QUESTION, f"You said {QUESTION}."]
        assert len(sounds(scene.workers.asked[-1])) == 1


async def test_an_answer_never_waits_for_a_caption() -> None:
    async with Scene(voice=0.99, omni=True) as scene:
        scene.workers.answers = {"Hi": "Hi.", "France": PARIS}
        scene.workers.aside_s = 8.0
        await scene.says("Hi there")
        await scene.pauses(2)
        assert len(scene.workers.asked_aside) == 1, "it is under way"
        ended_ms = await scene.says(QUESTION)
        await scene.pauses(2)
        assert scene.when("first_frame_published", ended_ms) - ended_ms < 560
        assert len(scene.workers.asked_aside) == 2, "begun again when the answer was written"
        await scene.pauses(20)
        assert scene.page.captions["caller-1"] == "Hi there"
        assert scene.page.captions["caller-2"] == QUESTION


async def test_without_captions_the_last_turn_is_remembered_as_sound_and_older_ones_as_unwritten() -> None:
    async with Scene(voice=0.99, omni=True) as scene:
        scene.workers.aside_fails = True
        for line in ("One", "Two", "Three"):
            await scene.says(line)
            await scene.pauses(5)
        body = scene.workers.asked[-1]
        said = [message["content"] for message in body["messages"] if message["role"] == "user"][-3:]
        assert said[0] == UNWRITTEN
        assert [scene.workers.text(content) for content in said[1:]] == ["Two", "Three"]
        assert len(sounds(body)) == 2
        assert scene.given_up == []


async def test_a_caption_that_fails_again_and_again_is_given_up() -> None:
    async with Scene(voice=0.99, omni=True) as scene:
        scene.workers.aside_fails = True
        await scene.says(QUESTION)
        await scene.pauses(10)
        assert scene.notes("failed") == 1
        assert len(scene.workers.asked_aside) == MOST_TRIES
        assert scene.page.captions["caller-1"] == UNWRITTEN_CAPTION


async def test_a_pause_in_mid_sentence_is_not_answered() -> None:
    async with Scene(voice=0.5, omni=True, shortest_ms=200, longest_ms=1500) as scene:
        await scene.says("I would like")
        await scene.pauses(0.4)
        assert scene.heard() == []
        await scene.says("a coffee")
        await scene.pauses(3)
        assert scene.heard() == ["You said I would like a coffee."]
        assert scene.page.captions["caller-1"] == "I would like a coffee"


async def test_how_complete_the_voice_sounds_decides_and_without_that_a_fixed_wait() -> None:
    waited_ms = {}
    for voice in (0.99, 0.01, None):
        async with Scene(voice=voice, omni=True, shortest_ms=200, longest_ms=1500) as scene:
            ended_ms = await scene.says(QUESTION)
            await scene.pauses(3)
            waited_ms[voice] = scene.when("eot_committed") - ended_ms
    assert waited_ms[0.99] < 300
    assert waited_ms[0.01] > 1000
    assert 600 < waited_ms[None] < 800


async def test_a_cough_alone_is_not_answered() -> None:
    async with Scene(voice=0.99, omni=True) as scene:
        await scene.coughs(0.25)
        await scene.pauses(3)
        assert scene.heard() == []
        assert scene.workers.asked == []
        assert scene.conversation.quiet


async def test_a_sound_over_an_answer_ends_it_by_its_length_alone() -> None:
    async with Scene(voice=0.99, omni=True) as scene:
        scene.workers.answers["story"] = STORY
        await scene.says("Tell me a story")
        await scene.pauses(1.2)
        await scene.says("Mm-hmm.", 0.4)
        await scene.pauses(6)
        assert " ".join(scene.heard()).endswith("It lived by the sea.")
        assert not events(scene, "barge_in")
        await scene.says("Tell me a story again")
        await scene.pauses(1.2)
        await scene.says("Stop, please", 1.0)
        await scene.pauses(5)
        assert len(events(scene, "barge_in")) == 1
        assert scene.heard()[-1] == "You said Stop, please."


@pytest.mark.parametrize("role", ["llm", "tts"])
async def test_an_answer_whose_worker_fails_is_begun_again_from_the_same_sound(role: str) -> None:
    async with Scene(voice=0.99, omni=True, speculation=False) as scene:
        scene.workers.answers["France"] = PARIS
        await scene.says(QUESTION)
        scene.workers.gone.add(role)
        await scene.pauses(0.75)
        scene.workers.gone.clear()
        await scene.pauses(5)
        assert scene.heard() == [PARIS]
        first, *others = scene.workers.asked
        assert others
        assert all(sounds(body) == sounds(first) for body in others)
        assert len(events(scene, "captioned")) == 1


async def test_an_utterance_without_an_end_is_answered_before_it_is_too_long_to_be_heard() -> None:
    async with Scene(voice=0.99, omni=True) as scene:
        await scene.says("And then", 32)
        await scene.pauses(3)
        body = scene.workers.asked[0]
        assert 25_000 < read_wav(base64.b64decode(sounds(body)[0])).duration_ms <= LONGEST_S * 1000
        most = len(sounds(body)[0]) * 2  # this turn's sound, and the last one's
        assert most < MAX_MEDIA_BYTES / 4
        assert len(json.dumps(body)) < MAX_BODY_BYTES / 4


async def test_typed_words_are_answered_as_words() -> None:
    async with Scene(omni=True) as scene:
        scene.workers.answers["France"] = PARIS
        scene.conversation.read(QUESTION)
        await scene.pauses(3)
        assert scene.heard() == [PARIS]
        assert sounds(scene.workers.asked[0]) == []
        assert scene.workers.asked_aside == []


async def test_what_the_camera_sees_at_the_end_goes_with_the_turn_and_is_not_kept() -> None:
    async with Scene(voice=0.99, omni=True) as scene:
        scene.page.picture_url = "data:image/jpeg;base64,AAAA"
        await scene.says("What do you see?")
        await scene.pauses(6)
        scene.page.picture_url = None
        await scene.says("And now?")
        await scene.pauses(6)
        first, second = scene.workers.asked
        assert first["messages"][-1]["content"][1] == {
            "type": "image_url",
            "image_url": {"url": "data:image/jpeg;base64,AAAA"},
        }
        ChatBody.model_validate(first).generation(OMNI)
        assert "image_url" not in json.dumps([second, scene.workers.asked_aside])


async def test_a_model_that_hears_and_does_not_see_is_shown_one_picture_at_most() -> None:
    async with Scene(voice=0.99, omni=True) as scene:
        scene.page.picture_url = "data:image/jpeg;base64,AAAA"
        scene.workers.refuses_pictures = True
        scene.workers.answers["France"] = PARIS
        for _ in range(2):
            await scene.says(QUESTION)
            await scene.pauses(6)
        assert scene.heard() == [scene.persona.phrases.no_answer, PARIS]


# Lanes


@pytest.mark.parametrize("omni", [True, False])
async def test_in_the_lane_dual_an_understanding_follows_the_answer(omni: bool) -> None:
    async with Scene(voice=0.99, omni=omni, lane="dual") as scene:
        scene.workers.answers["France"] = PARIS
        await scene.says(QUESTION)
        await scene.pauses(6)
        assert scene.heard() == [PARIS]
        [understood] = events(scene, "understood")
        assert understood["t_ms"] > scene.when("reply_written")
        assert (understood["transcript"], understood["language"], understood["emotion"]) == (QUESTION, "en", "calm")
        assert understood["turn"] == events(scene, "eot_committed")[0]["turn"]
        assert scene.page.captions["caller-1"] == QUESTION
        [aside] = scene.workers.asked_aside
        assert len(sounds(aside)) == omni, "the caption needs no request of its own"
        assert aside["messages"][:-1] == scene.workers.asked[0]["messages"][:-1], "as the model's cache has them"


@pytest.mark.parametrize("omni", [True, False])
async def test_in_the_lane_slow_the_agent_listens_and_takes_notes(omni: bool) -> None:
    async with Scene(voice=0.99, omni=omni, lane="slow") as scene:
        await scene.greets()
        began_ms = scene.now_ms
        for line in (QUESTION, "And of Italy?"):
            await scene.says(line)
            await scene.pauses(4)
        assert scene.heard(since_ms=began_ms) == []
        assert [event["transcript"] for event in events(scene, "understood")] == [QUESTION, "And of Italy?"]
        assert scene.workers.asked == []
        assert scene.conversation.quiet
        assert scene.conversation.turns == 2
        assert set(scene.page.captions) == {"agent-1", "caller-1", "caller-2"}


@pytest.mark.parametrize("omni", [True, False])
async def test_an_understanding_that_is_none_is_told_counted_and_costs_no_call(omni: bool) -> None:
    async with Scene(voice=0.99, omni=omni, lane="dual") as scene:
        scene.workers.mumbles = True
        await scene.says(QUESTION)
        await scene.pauses(6)
        assert scene.heard() == [f"You said {QUESTION}."]
        [told] = events(scene, "not_understood")
        assert "Well, {" in told["why"]
        assert scene.notes("garbage") == 1
        assert scene.page.captions["caller-1"] == QUESTION, "the caption comes by a request of its own"
        assert scene.given_up == []


async def test_the_lane_fast_asks_for_nothing_besides() -> None:
    async with Scene(lane="fast") as scene:
        await scene.says(QUESTION)
        await scene.pauses(5)
        assert scene.workers.asked_aside == []


async def test_what_was_only_a_pause_is_not_understood() -> None:
    async with Scene(voice=0.99, omni=True, lane="dual", shortest_ms=200, longest_ms=1500) as scene:
        await scene.says("I would like")
        await scene.pauses(0.27)  # committed, and not heard yet
        assert scene.when("eot_committed")
        await scene.says("a coffee")
        await scene.pauses(6)
        assert [event["transcript"] for event in events(scene, "understood")] == ["I would like a coffee"]
