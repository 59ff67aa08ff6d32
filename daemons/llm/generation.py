"""What is asked of a chat engine and what it answers, without a word about HTTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

# Called with each piece of the answer, and with "" when a part of the prompt has been read. True stops the engine.
Emit = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Literal["system", "user", "assistant", "tool"]
    content: str


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer to be made. `max_tokens` 0 only reads the prompt, so that the next request finds it in the cache."""

    messages: Sequence[ChatMessage]
    max_tokens: int
    temperature: float
    top_p: float
    repeat_penalty: float
    stop: Sequence[str]
    seed: int | None


@dataclass(frozen=True, slots=True)
class Generated:
    """How it ended. `cached_tokens` of the prompt had been read by an earlier request."""

    reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
