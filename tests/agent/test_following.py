"""What the model reads while the caller still speaks, on a virtual time line."""

import itertools

import pytest

from daemons.agent.following import EVERY_MS, REST, without_last
from tests.agent import scene as stage
from tests.agent.scene import Scene

GREETING_PROMPT = "Hello."  # what is read ahead while nothing is known of the next turn


async def long_utterance(scene: Scene) -> None:
    for line in ("I would like", "a table for", "four people", "on Sunday."):
        await scene.says(line, 0.6)


async def test_the_model_reads_most_of_the_words_before_the_last_is_said() -> None:
    async with Scene() as scene:
        scene.workers.answers["table"] = "At what time?"
        await long_utterance(scene)
        ended_ms = scene.now_ms
        read = [text for at_ms, text in scene.workers.read if at_ms < ended_ms]
        assert read[-1] == "I would like a table for four people on"
        assert all(earlier != later for earlier, later in itertools.pairwise(read)), "each only once"
        await scene.pauses(4)
        assert scene.heard() == ["At what time?"]
        assert scene.workers.asked[-1]["messages"][-1]["content"] == "I would like a table for four people on Sunday."
        assert scene.workers.read[-1][1] == GREETING_PROMPT, "the next turn is not known yet"


async def test_what_a_short_answer_said_is_not_read_along() -> None:
    async with Scene() as scene:
        await scene.says("Yes.", 0.3)
        await scene.pauses(0.1)
        assert "stt speculative" not in {entry for _, entry in scene.workers.log}


async def test_nobody_reads_along_without_speculation() -> None:
    async with Scene(speculation=False) as scene:
        await long_utterance(scene)
        await scene.pauses(4)
        assert {text for _, text in scene.workers.read} == {GREETING_PROMPT}
        assert "stt speculative" not in {entry for _, entry in scene.workers.log}


async def test_whoever_reads_along_makes_way_at_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "STT_S", 0.5)
    async with Scene() as scene:
        await scene.says("I would like a table", EVERY_MS / 1000 + 0.1)
        assert scene.workers.at_work == {"stt"}
        await scene.pauses(0.14)
        asked = [entry for _, entry in scene.workers.log if entry.startswith("stt")]
        assert asked == ["stt speculative", "stt committed"]
        await scene.pauses(3)
        assert {text for _, text in scene.workers.read} == {GREETING_PROMPT}
        assert len(scene.heard()) == 1


async def test_a_transcriber_that_fails_while_the_caller_speaks_costs_no_answer() -> None:
    async with Scene() as scene:
        scene.workers.gone = {"stt"}
        await scene.says("I would like", 1.2)
        scene.workers.gone = set()
        await scene.says("a table.", 0.6)
        await scene.pauses(4)
        assert scene.heard() == ["You said I would like a table.."]


async def test_reading_along_takes_a_quarter_of_real_time_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "STT_S", 0.4)
    async with Scene() as scene:
        await scene.says("This goes on and on.", 12)
        began_ms = [at_ms for at_ms, entry in scene.workers.log if entry == "stt speculative"]
        gaps_ms = [later - earlier for earlier, later in itertools.pairwise(began_ms)]
        assert len(began_ms) >= 5
        assert min(gaps_ms) >= REST * 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is the capital of Fr", "What is the capital of"),
        ("Yes, please, I would", "Yes, please, I"),
        ("I would like, um,", "I would like"),
        (" Wait. And ", "Wait"),
        ("Yes.", ""),
        ("", ""),
    ],
)
def test_the_last_word_is_left_out(text: str, expected: str) -> None:
    assert without_last(text) == expected
