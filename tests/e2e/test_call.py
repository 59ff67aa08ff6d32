"""Real calls: a robot speaks to the whole box through LiveKit, and what comes back is transcribed again."""

import asyncio
import io
from collections.abc import Sequence

import aiohttp
import pytest

from daemons.audio import STT_RATE_HZ, Pcm, to_int16, wav_bytes
from ops.caller import Report, Utterance, synthesize, talk
from ops.private_box import PrivateBox
from ops.robot import Robot, dial
from tests.speech_samples import librivox, needs_librivox, word_error_rate

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROUND_TRIP_WER = 0.25  # text → speech → Opus → text, on a dozen words: at most a few may be misheard


async def converse(box: PrivateBox, utterances: Sequence[Utterance]) -> tuple[Report, Robot]:
    async with dial(box.settings.door_url) as robot:
        return await talk(robot, utterances), robot


async def transcribe(box: PrivateBox, pcm: Pcm) -> str:
    """Ask the box's own STT worker, as any client of OpenAI's API would."""
    form = aiohttp.FormData({"model": "stt", "response_format": "text"})
    form.add_field("file", io.BytesIO(wav_bytes(pcm.resampled(STT_RATE_HZ))), filename="heard.wav")
    url = f"http://127.0.0.1:{box.settings.stt_port}/v1/audio/transcriptions"
    async with aiohttp.ClientSession() as session, session.post(url, data=form) as response:
        assert response.status == 200, await response.text()
        return (await response.text()).strip()


async def heard_answer(box: PrivateBox, robot: Robot, report: Report, turn: int) -> str:
    """What the caller's ear makes of the answer's audio."""
    answer = report.turns[turn]
    return await transcribe(box, robot.heard.between(answer.answer_from_ns, answer.answer_to_ns))


async def say(box: PrivateBox, *words: str) -> list[Utterance]:
    return [await synthesize(box.settings, one) for one in words]


@needs_librivox
@pytest.mark.usefixtures("persona")
async def test_recorded_human_speech_is_understood_and_answered_aloud(box: PrivateBox) -> None:
    """Which of a reader's pauses ends the turn is judged by `callbox bench endpointing`; here each clip is one."""
    box.write_persona(shortest_ms=1500)
    clips = sorted(librivox(), key=lambda clip: len(clip[0]))[:3]
    spoken = [Utterance(words=words, pcm=Pcm(to_int16(samples), STT_RATE_HZ)) for samples, words in clips]
    report, robot = await converse(box, spoken)
    understood = " ".join(turn.understood for turn in report.turns)
    wer = word_error_rate(" ".join(turn.said for turn in report.turns), understood)
    print(f"\nWER of {len(clips)} LibriVox clips through LiveKit: {wer:.3f}")
    assert wer < 0.15, understood
    for index, turn in enumerate(report.turns):
        heard = await heard_answer(box, robot, report, index)
        print(f"written: {turn.answer}\nheard:   {heard}")
        assert turn.answer
        assert word_error_rate(turn.answer, heard) <= ROUND_TRIP_WER


MEMORY = ("Hello, my name is Maria.", "What is the capital of France?", "Do you remember what my name is?")


async def test_the_third_turn_remembers_the_first(box: PrivateBox) -> None:
    report, robot = await converse(box, await say(box, *MEMORY))
    assert "paris" in report.turns[1].answer.lower()
    assert "maria" in report.turns[2].answer.lower()
    assert "maria" in (await heard_answer(box, robot, report, 2)).lower()


@pytest.mark.usefixtures("persona")
async def test_without_history_the_third_turn_cannot_know(box: PrivateBox) -> None:
    """The counterproof: the memory above is the history's, not luck."""
    box.write_persona(history_turns=0)
    report, _ = await converse(box, await say(box, *MEMORY))
    assert "maria" not in report.turns[2].answer.lower()


async def test_two_calls_at_once_each_hear_their_own_answer(box: PrivateBox) -> None:
    questions = ("What is the capital of France?", "What is the capital of Italy?")
    spoken = await say(box, *questions)
    reports = await asyncio.gather(*(converse(box, [one] * 2) for one in spoken))
    latencies_ms = sorted(turn.eot_to_first_audio_ms or 0.0 for report, _ in reports for turn in report.turns)
    print(f"\nend of turn → first audio of two calls at once, ms: {latencies_ms} (n = 4, so the P95 is the maximum)")
    for (report, robot), own, other in zip(reports, ("paris", "rome"), ("rome", "paris"), strict=True):
        for index in range(2):
            heard = (await heard_answer(box, robot, report, index)).lower()
            assert own in heard, (report.turns[index].answer, heard)
            assert other not in heard


async def test_a_call_over_capacity_is_told_its_place_and_gets_its_turn(box: PrivateBox) -> None:
    places: list[int] = []
    (question,) = await say(box, "What is the capital of France?")
    async with dial(box.settings.door_url):
        async with dial(box.settings.door_url):
            waiting = asyncio.create_task(answer_after_queueing(box, question, places))
            while not places:
                assert not waiting.done(), waiting.result()
                await asyncio.sleep(0.1)
        assert "paris" in (await asyncio.wait_for(waiting, 60)).lower()
    assert places[0] == 1


async def answer_after_queueing(box: PrivateBox, question: Utterance, places: list[int]) -> str:
    async with dial(box.settings.door_url, on_queued=lambda queued: places.append(queued.position)) as robot:
        return (await talk(robot, [question])).turns[0].answer


async def test_barge_in_stops_the_voice(box: PrivateBox) -> None:
    (question, interruption) = await say(
        box, "Please tell me a long story about a dog.", "Stop please, what is the capital of France?"
    )
    async with dial(box.settings.door_url) as robot:
        await robot.event(lambda event: event["event"] == "reply_heard", 20)
        await asyncio.sleep(0.5)
        await robot.say(question.pcm)
        asked = len(robot.events)
        await robot.event(lambda event: event in robot.events[asked:] and event["event"] == "first_frame_published", 30)
        await asyncio.sleep(0.3)
        await robot.say(interruption.pcm)
        cancelled = await robot.event(lambda event: event["event"] == "barge_in", 5)
        last = await robot.event(lambda event: event["event"] == "last_frame_published", 5)
        heard = await robot.event(
            lambda event: event["event"] == "reply_heard" and event["turn"] == cancelled["turn"], 5
        )
        assert heard["cut_off"]
        assert last["t_ns"] - cancelled["t_ns"] < 100e6
        answer = await robot.event(
            lambda event: event["event"] == "reply_heard" and event["turn"] > cancelled["turn"], 40
        )
        assert "paris" in answer["text"].lower()
