"""What comes with the audio: what the words are for, and what the client knows of them."""

from dataclasses import dataclass
from typing import Literal

from daemons.wire import Priority

Purpose = Literal["committed", "speculative", "partial"]


@dataclass(frozen=True, slots=True)
class Asked:
    purpose: Purpose = "committed"
    language: str | None = None  # ISO 639-1; None when the client does not say
    prompt: str = ""  # words that are likely to be said, or what was said before

    @property
    def priority(self) -> Priority:
        """In a queue. Partials do more: they leave when anything else comes."""
        return "committed" if self.purpose == "committed" else "speculative"
