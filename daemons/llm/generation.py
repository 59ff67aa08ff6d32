"""What is asked of a chat engine and what it answers, without a word about HTTP."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Modality = Literal["text", "audio", "image"]
Reason = Literal["stop", "length", "cancelled"]
TEXT_ONLY: frozenset[Modality] = frozenset({"text"})
OMNI: frozenset[Modality] = frozenset({"text", "audio", "image"})

# What a small model says best with, where the request says nothing.
DEFAULT_TEMPERATURE = 0.2
DEFAULT_REPEAT_PENALTY = 1.1


@dataclass(frozen=True, slots=True)
class Audio:
    """A file of sound, as OpenAI's `input_audio` carries it."""

    base64: str
    format: Literal["wav", "mp3"]


@dataclass(frozen=True, slots=True)
class Image:
    """A picture as a `data:` URL."""

    url: str


Part = str | Audio | Image


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Literal["system", "user", "assistant", "tool"]
    content: str | tuple[Part, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return (self.content,) if isinstance(self.content, str) else self.content

    @property
    def text(self) -> str:
        """What can be read of it."""
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer to be made; None leaves the choice to the engine.

    `max_tokens` 0 only reads the prompt, so that the next request finds it in the cache.
    """

    messages: Sequence[ChatMessage]
    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: Sequence[str] = ()
    seed: int | None = None


WARM_UP = Generation(
    messages=[ChatMessage("system", "You are on the phone."), ChatMessage("user", "Hello?")],
    max_tokens=2,
    temperature=0.0,
)


@dataclass(frozen=True, slots=True)
class Generated:
    """How it ended. `cached_tokens` of the prompt had been read by an earlier request."""

    reason: Reason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
