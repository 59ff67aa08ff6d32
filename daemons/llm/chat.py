"""OpenAI's chat wire: what a request may say, and the shapes of the answers."""

import json
import secrets
import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from daemons.errors import BadRequest
from daemons.llm.generation import ChatMessage, Generated, Generation

DEFAULT_MAX_TOKENS = 150
MAX_MESSAGES = 512
MAX_CHARS = 200_000
MAX_STOPS = 8
# What a small model says best with; a request's own figures go before.
DEFAULT_TEMPERATURE = 0.2
DEFAULT_REPEAT_PENALTY = 1.1

Role = Literal["system", "developer", "user", "assistant", "tool"]


class Part(BaseModel):
    type: str
    text: str = ""


class Message(BaseModel):
    role: Role
    content: str | list[Part] | None = None

    def plain(self) -> ChatMessage:
        """Raises BadRequest for parts that are not text."""
        role = "system" if self.role == "developer" else self.role
        if self.content is None or isinstance(self.content, str):
            return ChatMessage(role, self.content or "")
        for part in self.content:
            if part.type != "text":
                raise BadRequest(f"this engine reads text; it cannot take a part of type {part.type!r}")
        return ChatMessage(role, "".join(part.text for part in self.content))


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatBody(BaseModel):
    """POST /v1/chat/completions; what is not named here and would not change the answer is ignored."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    # 0 only reads the prompt into the cache of the caller's slot
    max_tokens: Annotated[int, Field(ge=0, le=32_768)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=0, le=32_768)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    n: Literal[1, None] = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    response_format: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _is_plain_chat(self) -> "ChatBody":
        if self.response_format is not None and self.response_format.get("type", "text") != "text":
            raise ValueError("response_format: only text is answered here")
        if sum(len(message.content or "") for message in self.messages) > MAX_CHARS:
            raise ValueError(f"the messages have more than {MAX_CHARS} characters")
        return self

    def generation(self) -> Generation:
        limits = [limit for limit in (self.max_completion_tokens, self.max_tokens) if limit is not None]
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Generation(
            messages=[message.plain() for message in self.messages],
            max_tokens=limits[0] if limits else DEFAULT_MAX_TOKENS,
            temperature=DEFAULT_TEMPERATURE if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            repeat_penalty=DEFAULT_REPEAT_PENALTY if self.repeat_penalty is None else self.repeat_penalty,
            stop=[text for text in stop if text],
            seed=self.seed,
        )


class Reply:
    """The shapes of one answer, whole or in chunks."""

    def __init__(self, model: str) -> None:
        self._common = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, text: str, generated: Generated) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": generated.reason}
        return {**self._common, "object": "chat.completion", "choices": [choice], "usage": usage(generated)}

    def chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        return self._event([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def usage_chunk(self, generated: Generated) -> bytes:
        return self._event([], usage=usage(generated))

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return event({**self._common, "object": "chat.completion.chunk", "choices": choices, **more})


DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def usage(generated: Generated) -> dict[str, Any]:
    return {
        "prompt_tokens": generated.prompt_tokens,
        "completion_tokens": generated.completion_tokens,
        "total_tokens": generated.prompt_tokens + generated.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": generated.cached_tokens},
    }
