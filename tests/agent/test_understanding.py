"""What may come back when a model is asked about an utterance."""

import json

import pytest

from daemons.agent.said import Spoken
from daemons.agent.understanding import Understanding, read_understanding, read_words

SPOKEN = Spoken("AAAA", 1000)
FIELDS = {"transcript": "Hi.", "language": "en", "intent": "greeting", "emotion": "calm", "summary": "A greeting."}


@pytest.mark.parametrize("around", ["{}", "```json\n{}\n```", "Here it is: {} I hope that helps."])
def test_words_around_the_json_do_no_harm(around: str) -> None:
    answer = around.replace("{}", json.dumps(FIELDS))
    assert read_understanding(answer, SPOKEN) == Understanding(**FIELDS)


def test_what_was_written_down_before_is_the_transcript() -> None:
    assert read_understanding(json.dumps(FIELDS), "Hi there.").transcript == "Hi there."
    without = {name: value for name, value in FIELDS.items() if name != "transcript"}
    assert read_understanding(json.dumps(without), "Hi there.").transcript == "Hi there."


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "Expecting value"),
        ("I would rather not.", "Expecting value"),
        ("{", "Expecting"),
        ("{]}", "Expecting"),
        ('["transcript"]', "Input should be"),
        (json.dumps(FIELDS | {"emotion": 3}), "emotion: Input should be a valid string"),
        (json.dumps(FIELDS | {"summary": "x" * 1001}), "summary: String should have at most 1000"),
        (json.dumps({"transcript": "Hi."}), "language: Field required"),
    ],
)
def test_what_is_no_understanding_is_named(answer: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_understanding(answer, SPOKEN)


@pytest.mark.parametrize(
    ("answer", "words"),
    [("Hello there.", "Hello there."), (' "Hello\nthere." ', "Hello there."), ("[silence]", ""), ("(no speech)", "")],
)
def test_words_are_taken_as_they_are_meant(answer: str, words: str) -> None:
    assert read_words(answer) == words
