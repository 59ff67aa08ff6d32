"""What a model is asked about an utterance besides answering it, and what may come back."""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daemons.agent.said import Content, Said, Spoken

WRITE_DOWN = (
    "Write down word for word what is said in this recording, in the language in which it is said. "
    "Answer with those words alone. If nobody speaks, answer with nothing."
)
UNDERSTAND = """
(Do not answer this. Write one JSON object about it, and nothing else:
{"transcript": the caller's words as they are said, or "" if there are none, "language": its ISO 639-1 code,
"intent": what the caller wants, in a few words, "emotion": how the caller feels, in one word,
"summary": what is said, in one short sentence})"""
TOKENS_PER_S, TOKENS_AT_LEAST = 16, 32  # of speech, written down
UNDERSTANDING_TOKENS = 200  # beside the words


class Understanding(BaseModel):
    """One utterance, understood."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    transcript: Annotated[str, Field(max_length=4000)]
    language: Annotated[str, Field(max_length=40)]
    intent: Annotated[str, Field(max_length=500)]
    emotion: Annotated[str, Field(max_length=100)]
    summary: Annotated[str, Field(max_length=1000)]


def words_wanted(said: Said) -> dict[str, Any]:
    """The chat request for the words of `said`."""
    task = {"type": "text", "text": WRITE_DOWN}
    content = [*said.sound, task] if isinstance(said, Spoken) else said
    return _body([{"role": "user", "content": content}], _word_tokens(said))


def understanding_wanted(said: Said, before: list[dict[str, Any]]) -> dict[str, Any]:
    """The chat request for an Understanding of `said`.

    `before`: the messages that the model was shown before it. They are what its cache holds of the call, and a request
    without them would cost the next answer that cache.
    """
    task = {"type": "text", "text": UNDERSTAND}
    content: Content = [*said.sound, task] if isinstance(said, Spoken) else f"{said}\n{UNDERSTAND}"
    return _body([*before, {"role": "user", "content": content}], UNDERSTANDING_TOKENS + _word_tokens(said))


def read_words(answer: str) -> str:
    """What a model wrote down, without quotes around it; "" for "[silence]" and its like."""
    said = " ".join(answer.split())
    if re.fullmatch(r"\[[^]]*\]|\([^)]*\)", said):
        return ""
    return said[1:-1] if re.fullmatch(r'"[^"]*"', said) else said


def read_understanding(answer: str, said: Said) -> Understanding:
    """Out of `answer`, which may have words or a fence around its JSON. Raises ValueError, which says what is wrong."""
    found = re.search(r"\{.*\}", answer, re.DOTALL)
    try:
        read = json.loads(found[0] if found else answer)
        if isinstance(said, str) and isinstance(read, dict):
            read["transcript"] = said
        understanding = Understanding.model_validate(read)
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, at['loc']))}: {at['msg']}" for at in error.errors(include_input=False))
        raise ValueError("; ".join(wrong)) from None
    return understanding.model_copy(update={"transcript": read_words(understanding.transcript)})


def _word_tokens(said: Said) -> int:
    seconds = said.duration_ms / 1000 if isinstance(said, Spoken) else len(said) / 10
    return TOKENS_AT_LEAST + round(seconds * TOKENS_PER_S)


def _body(messages: list[dict[str, Any]], max_tokens: int) -> dict[str, Any]:
    return {"messages": messages, "temperature": 0.0, "max_tokens": max_tokens}
