"""What of a reply was heard, where it is cut, and what the model is shown of it later."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from daemons.agent import persona
from daemons.agent.history import CUT_OFF, History
from daemons.agent.reply import Reply, first_sentences
from daemons.errors import ConfigurationError
from daemons.settings import ROOT
from daemons.wire import TtsSegment
from tests.agent.sink import Stage


async def pieces(text: str) -> AsyncGenerator[str, None]:
    """As a model writes: words with the white space before them."""
    for index, word in enumerate(text.split(" ")):
        yield (" " if index else "") + word


@pytest.mark.parametrize(
    ("text", "most", "passed"),
    [
        ("One. Two. Three.", 2, "One. Two. "),
        ("Only one", 2, "Only one"),
        ("It is 3.5 degrees at example.com today. Yes. No.", 1, "It is 3.5 degrees at example.com today. "),
        ("你好。再见。还有吗？", 2, "你好。再见。"),
        ('She said "go!" Then left. End.', 2, 'She said "go!" Then left. '),
    ],
)
async def test_sentences_are_counted_and_the_rest_is_not_read(text: str, most: int, passed: str) -> None:
    assert "".join([piece async for piece in first_sentences(pieces(text), most)]) == passed


async def test_the_source_is_closed_when_enough_was_read() -> None:
    source = pieces("One. Two. Three. Four.")
    async for _ in first_sentences(source, 1):
        pass
    assert [piece async for piece in source] == []


@pytest.fixture
async def reply() -> Reply:
    made = Reply(1, "how are you", Stage().playout.start(1), keep_caller=False)
    made.segments += [
        TtsSegment(id=1, text="I am well.", from_sample=0, samples=1000),
        TtsSegment(id=1, text="The sun is shining today.", from_sample=1000, samples=1000),
    ]
    return made


@pytest.mark.parametrize(
    ("played", "heard"),
    [
        (0, ""),
        (400, "I"),
        (1000, "I am well."),
        (1500, "I am well. The sun"),
        (2000, "I am well. The sun is shining today."),
        (9999, "I am well. The sun is shining today."),
    ],
)
async def test_the_words_heard_follow_the_playout(reply: Reply, played: int, heard: str) -> None:
    assert reply.heard(played) == heard


async def test_captions_come_with_the_voice(reply: Reply) -> None:
    assert reply.begun(480) == "I am well."
    assert reply.begun(960) is None
    assert reply.begun(1440) == "I am well. The sun is shining today."


def test_history_shows_what_was_heard_and_where_it_was_cut() -> None:
    history = History(persona.load(ROOT / "etc/persona.toml"))
    history.add("", "Hello!")
    history.add("tell me a story", "Once upon a", cut_off=True)
    messages = history.messages("stop")
    assert messages[0]["role"] == "system"
    assert messages[-4:] == [
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "tell me a story"},
        {"role": "assistant", "content": "Once upon a" + CUT_OFF},
        {"role": "user", "content": "stop"},
    ]


def test_a_long_call_keeps_its_latest_turns() -> None:
    shown = persona.load(ROOT / "etc/persona.toml")
    history = History(shown)
    for number in range(1000):
        history.add(f"question {number}", f"answer {number}")
        length = len(history.messages("now")) - 2 - 2 * len(shown.examples)
        assert length <= 4 * shown.writing.history_turns
        assert length >= 2 * min(number + 1, shown.writing.history_turns)
    assert history.messages("now")[-2]["content"] == "answer 999"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [("greeting = ", "greeting"), ("[writing]\ntemperature = 9", "writing.temperature"), ("[oops", "persona.toml")],
)
def test_a_wrong_persona_is_refused_in_words(tmp_path: Path, change: str, complaint: str) -> None:
    text = (ROOT / "etc/persona.toml").read_text(encoding="utf-8")
    broken = tmp_path / "persona.toml"
    if change.startswith("greeting"):
        text = text.replace("greeting = ", "greeting_ = ")
    elif change.startswith("[writing]"):
        text = text.replace("[writing]\ntemperature = 0.2", change)
    else:
        text += change
    broken.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=complaint):
        persona.load(broken)
