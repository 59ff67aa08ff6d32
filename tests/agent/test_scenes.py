"""Whole conversations on a virtual time line."""

import numpy as np
import pytest

from daemons.agent import persona
from daemons.agent.company import HOLD_AFTER_S, THINK_ALOUD_AFTER_S, TICK_S
from daemons.agent.mixer import FADE_SAMPLES
from daemons.agent.playout import QUEUE_MS
from daemons.audio import FRAME_MS, TTS_RATE_HZ
from tests.agent.scene import FIRST_TOKEN_S, TTS_S, Scene

PARIS = "The capital of France is Paris."
STORY = "Once there was a dog. It lived by the sea."


@pytest.mark.parametrize("speculation", [True, False])
async def test_a_question_is_answered(speculation: bool) -> None:
    async with Scene(speculation=speculation) as scene:
        scene.workers.answers["France"] = PARIS
        ended_ms = await scene.says("What is the capital of France?")
        await scene.pauses(4)
        assert scene.heard() == [PARIS]
        assert scene.when("first_frame_published") >= scene.when("eot_committed")
        waited_ms = scene.when("first_frame_published") - ended_ms
        assert waited_ms < 560 if speculation else waited_ms > 640
        assert scene.page.states == ["initializing", "listening", "thinking", "speaking", "listening"]
        assert scene.page.captions == {"caller-1": "What is the capital of France?", "agent-1": PARIS}


async def test_a_sentence_that_sounds_finished_is_answered_sooner_than_one_that_does_not() -> None:
    waited_ms = {}
    for line, voice in (("What is the capital of France?", 0.99), ("What is the capital of", 0.01)):
        async with Scene(voice=voice, shortest_ms=200, longest_ms=1500) as scene:
            scene.workers.answers["capital"] = PARIS
            ended_ms = await scene.says(line)
            await scene.pauses(5)
            waited_ms[line] = scene.when("first_frame_published") - ended_ms
            assert scene.heard() == [PARIS]
    finished_ms, unfinished_ms = waited_ms.values()
    assert finished_ms < 480
    assert unfinished_ms > 1200


async def test_a_pause_in_mid_sentence_is_not_answered_and_what_was_prepared_is_thrown_away() -> None:
    async with Scene() as scene:
        await scene.says("I would like")
        await scene.pauses(0.4)
        assert "llm" in {entry.split()[0] for _, entry in scene.workers.log}, "something was prepared"
        assert scene.heard() == []
        await scene.says("a coffee")
        await scene.pauses(3)
        assert scene.heard() == ["You said I would like a coffee."]
        assert (scene.count("kept"), scene.count("thrown_away")) == (1, 1)


async def test_what_is_prepared_is_speculative_and_what_is_committed_is_not() -> None:
    async with Scene() as scene:
        await scene.says("Tell me a story")
        await scene.pauses(0.45)
        before_commit = {entry for _, entry in scene.workers.log}
        assert before_commit == {"stt speculative", "stt committed", "llm speculative", "tts speculative"}


async def test_an_answer_that_is_committed_while_it_is_written_is_kept() -> None:
    async with Scene() as scene:
        scene.workers.answers = {"story": f"Once there was a {'very ' * 40}big dog."}
        await scene.says("Hello")
        await scene.pauses(3)
        assert scene.workers.kept_ms == [], "it was written before it was committed"
        await scene.says("Tell me a story")
        await scene.pauses(0.45)
        assert scene.workers.kept_ms == [], "nobody knows yet whether it is wanted"
        await scene.pauses(3)
        assert len(scene.workers.kept_ms) == 1


async def test_two_barge_ins_leave_the_words_that_were_heard() -> None:
    async with Scene() as scene:
        scene.workers.answers = {"story": STORY, "cat": STORY.replace("dog", "cat"), "France": PARIS}
        await scene.says("Tell me a story")
        await scene.pauses(1.5)
        await scene.says("No, of a cat")
        await scene.pauses(1.5)
        await scene.says("Stop. What is the capital of France?")
        await scene.pauses(4)
        heard = scene.heard()
        assert heard[0].startswith("Once there was a dog")
        assert heard[1].startswith("Once there was a cat")
        assert heard[-1] == PARIS
        shown = [message["content"] for message in scene.workers.asked[-1]["messages"]]
        cut_off = [content for content in shown if content.endswith("…")]
        assert len(cut_off) == 2
        assert all(len(content) < len(STORY) for content in cut_off)
        assert sum(event["event"] == "barge_in" for event in scene.events) == 2


async def test_nothing_is_heard_from_a_barge_in_to_the_next_answer() -> None:
    async with Scene() as scene:
        scene.workers.answers["story"] = STORY
        await scene.says("Tell me a story")
        await scene.pauses(1.5)
        began_ms = scene.now_ms
        await scene.says("Stop", 1.0)
        held_ms = began_ms + 2 * 32 + 20 + 32  # the onset, the frame under way, a window's length of jitter
        assert scene.heard(since_ms=held_ms) == []


async def test_a_cough_does_not_end_the_answer() -> None:
    async with Scene() as scene:
        scene.workers.answers["story"] = STORY
        await scene.says("Tell me a story")
        await scene.pauses(1.2)
        await scene.coughs()
        await scene.pauses(6)
        assert " ".join(scene.heard()).endswith("It lived by the sea.")
        assert not any(event["event"] == "barge_in" for event in scene.events)


async def test_the_trace_tells_how_much_of_an_answer_was_sent_when_it_was_held_and_when_it_ended() -> None:
    async with Scene() as scene:
        scene.workers.answers["story"] = STORY
        await scene.says("Tell me a story")
        await scene.pauses(1.2)
        await scene.coughs()
        await scene.pauses(1.5)
        await scene.says("Stop")
        await scene.pauses(1.5)
        first_ms = scene.when("first_frame_published")
        told = [event for event in scene.events if event["event"].startswith(("playout_", "last_frame"))]
        assert [event["event"] for event in told] == [
            *("playout_held", "playout_resumed", "playout_held", "last_frame_published")
        ]
        held, resumed, held_again, last = told
        sent_ms = [round(event["played_samples"] * 1000 / TTS_RATE_HZ) for event in (held, held_again, last)]
        assert sent_ms[0] == pytest.approx(held["t_ms"] - first_ms, abs=2 * FRAME_MS)
        assert sent_ms[1] - sent_ms[0] == pytest.approx(held_again["t_ms"] - resumed["t_ms"], abs=2 * FRAME_MS)
        assert sent_ms[2] == sent_ms[1]


async def test_a_backchannel_does_not_end_the_answer() -> None:
    async with Scene() as scene:
        scene.workers.answers["story"] = STORY
        await scene.says("Tell me a story")
        await scene.pauses(1.2)
        await scene.says("Mm-hmm.", 0.4)
        await scene.pauses(6)
        assert " ".join(scene.heard()).endswith("It lived by the sea.")
        assert not any(event["event"] == "barge_in" for event in scene.events)


async def test_a_cough_alone_is_not_answered() -> None:
    async with Scene() as scene:
        await scene.coughs(0.3)
        await scene.pauses(3)
        assert scene.heard() == []
        assert scene.conversation.quiet


async def test_typed_text_is_answered() -> None:
    async with Scene() as scene:
        scene.workers.answers["France"] = PARIS
        scene.conversation.read("What is the capital of France?")
        await scene.pauses(3)
        assert scene.heard() == [PARIS]


# Workers fail


@pytest.mark.parametrize("role", ["stt", "llm", "tts"])
async def test_while_a_worker_hangs_the_caller_is_not_left_in_silence_and_is_answered(role: str) -> None:
    async with Scene() as scene:
        scene.workers.answers["France"] = PARIS
        await scene.greets()
        scene.workers.hung.add(role)
        ended_ms = await scene.says("What is the capital of France?")
        await scene.pauses(12)
        scene.workers.hung.clear()
        await scene.pauses(5)
        heard = scene.heard(since_ms=ended_ms)
        assert heard[:4] == [*scene.persona.phrases.hold, scene.persona.phrases.hold[0]]
        assert heard[-1] == PARIS
        silences_ms = scene.page.silences_ms(ended_ms, ended_ms + 12_000)
        decided_ms = 480 + (FIRST_TOKEN_S + TTS_S) * 1000
        assert max(silences_ms) <= (HOLD_AFTER_S + 2 * TICK_S) * 1000 + decided_ms


@pytest.mark.parametrize("role", ["llm", "tts"])
async def test_a_worker_that_fails_while_the_answer_is_prepared_costs_nothing_but_time(role: str) -> None:
    async with Scene() as scene:
        scene.workers.answers["France"] = PARIS
        await scene.says("What is the capital of France?")
        scene.workers.gone.add(role)
        await scene.pauses(0.46)
        assert scene.count("failed") == 1
        scene.workers.gone.clear()
        await scene.pauses(4)
        assert scene.heard() == [PARIS]


async def test_a_voice_that_fails_in_mid_answer_begins_it_again() -> None:
    async with Scene() as scene:
        scene.workers.answers["story"] = STORY
        await scene.says("Tell me a story")
        await scene.pauses(0.52)
        scene.workers.gone.add("tts")
        await scene.pauses(0.3)
        scene.workers.gone.clear()
        await scene.pauses(8)
        first, second = STORY.split(". ")
        assert scene.heard()[-2:] == [f"{first}.", second]
        assert scene.given_up == []


@pytest.mark.parametrize("role", ["stt", "llm", "tts"])
async def test_a_call_without_any_worker_of_a_role_is_given_up(role: str) -> None:
    async with Scene() as scene:
        scene.workers.hopeless.add(role)
        await scene.says("What is the capital of France?")
        await scene.pauses(3)
        assert scene.given_up


async def test_a_worker_that_always_fails_is_not_asked_for_ever() -> None:
    async with Scene() as scene:
        scene.workers.gone.add("tts")
        await scene.says("What is the capital of France?")
        await scene.pauses(5)
        assert scene.given_up == ["a reply failed again and again"]


async def test_asides_stop_when_the_caller_speaks() -> None:
    async with Scene() as scene:
        await scene.greets()
        scene.workers.hung.add("llm")
        await scene.says("What is the capital of France?")
        await scene.pauses(2.4)
        assert scene.heard()[-1] == scene.persona.phrases.hold[0]
        began_ms = scene.now_ms
        await scene.says("Hello?")
        assert scene.heard(since_ms=began_ms + 150) == []


# Sounds of the operator's

HUM, TICKING = 3, 7
FADE_MS = FADE_SAMPLES * 1000 / TTS_RATE_HZ


def sounding(*, ambience: int = 0, thinking: int = 0) -> persona.Sounds:
    """Of one sample value each, as loud as it is."""
    hum, ticking = (np.full(12_345, value, np.int16) if value else None for value in (ambience, thinking))
    return persona.Sounds.model_construct(ambience=hum, ambience_db=0, thinking=ticking, thinking_db=0)


async def test_a_thinking_sound_is_heard_while_an_answer_takes_long_and_no_longer() -> None:
    async with Scene(sounds=sounding(thinking=TICKING)) as scene:
        scene.workers.answers["France"] = PARIS
        await scene.greets()
        scene.workers.hung.add("llm")
        await scene.says("What is the capital of France?")
        await scene.pauses(12)
        scene.workers.hung.clear()
        await scene.pauses(5)
        committed_ms = scene.when("eot_committed", since_ms=scene.when("user_stopped"))
        ticking_ms = scene.page.times_ms(TICKING)
        waited_ms = ticking_ms[0] - FADE_MS - committed_ms
        assert THINK_ALOUD_AFTER_S * 1000 <= waited_ms <= (THINK_ALOUD_AFTER_S + 2 * TICK_S) * 1000
        silences_ms = scene.page.silences_ms(committed_ms, committed_ms + 11_000)
        assert max(silences_ms) <= (THINK_ALOUD_AFTER_S + 2 * TICK_S) * 1000
        answered_ms = scene.when("first_frame_published", since_ms=committed_ms)
        assert scene.heard(since_ms=answered_ms + FADE_MS) == [PARIS]
        assert ticking_ms[-1] <= answered_ms
        assert scene.page.frames[-1][0] < answered_ms + len(PARIS) * 60 + QUEUE_MS, "and silence after it"


async def test_a_quick_answer_has_no_thinking_sound() -> None:
    async with Scene(sounds=sounding(thinking=TICKING)) as scene:
        await scene.greets()
        for _ in range(3):
            await scene.says("What is the capital of France?")
            await scene.pauses(5)
        assert scene.page.times_ms(TICKING) == []


async def test_nobody_thinks_aloud_while_the_caller_is_looking_for_words() -> None:
    async with Scene(sounds=sounding(thinking=TICKING), voice=0.01, shortest_ms=200, longest_ms=3000) as scene:
        await scene.says("I would like")
        await scene.pauses(1.4)
        await scene.says("a coffee")
        assert scene.page.times_ms(TICKING) == []


@pytest.mark.parametrize("after_s", [1.6, 1.62, 1.64, 1.66, 1.68])
async def test_the_thinking_sound_stops_when_the_caller_speaks(after_s: float) -> None:
    async with Scene(sounds=sounding(thinking=TICKING)) as scene:
        scene.workers.hung.add("llm")
        await scene.says("What is the capital of France?")
        await scene.pauses(after_s)
        assert scene.page.times_ms(TICKING)
        began_ms = scene.now_ms
        await scene.says("Hello?")
        assert scene.page.times_ms(TICKING, since_ms=began_ms + 3 * 32 + QUEUE_MS + FRAME_MS) == []


async def test_ambience_is_heard_from_the_greeting_on_and_a_barge_in_silences_the_voice_alone() -> None:
    async with Scene(sounds=sounding(ambience=HUM)) as scene:
        scene.workers.answers["story"] = STORY
        await scene.pauses(1)
        assert scene.page.frames == []
        await scene.greets()
        await scene.says("Tell me a story")
        await scene.pauses(1.5)
        began_ms = scene.now_ms
        await scene.says("Stop", 1.0)
        held_ms = began_ms + 2 * 32 + 20 + 32
        times_ms = [at_ms for at_ms, _ in scene.page.frames if held_ms <= at_ms < began_ms + 1000]
        assert times_ms == scene.page.times_ms(HUM, since_ms=held_ms)[: len(times_ms)]
        greeted_ms = scene.page.frames[0][0]
        assert max(scene.page.silences_ms(greeted_ms, scene.now_ms)) <= FRAME_MS, "never a frame too few"
        assert sum(event["event"] == "barge_in" for event in scene.events) == 1


async def test_a_call_leaves_no_work_behind() -> None:
    async with Scene() as scene:
        scene.workers.answers["story"] = STORY
        await scene.says("Tell me a story")
        await scene.pauses(0.3)
        assert scene.workers.at_work
    assert not scene.workers.at_work
    assert not scene._tasks
