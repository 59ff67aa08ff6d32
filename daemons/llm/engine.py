"""What a chat engine is, and which there are."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from daemons.errors import ConfigurationError
from daemons.llm.engines.llamacpp import LlamaCpp
from daemons.llm.generation import Emit, Generated, Generation
from daemons.models import model_dir
from daemons.settings import Settings


class LlmEngine(Protocol):
    context_tokens: int  # that one slot holds, prompt and answer together

    def load(self) -> None:
        """Blocks until the model is in memory."""

    def generate(self, slot: int, generation: Generation, emit: Emit) -> Generated:
        """Continue the conversation in `slot`, whose prompt cache is the conversation's own.

        One call at a time for each slot; different slots from different threads. Raises BadRequest when the prompt does
        not fit, Unavailable when the engine fails.
        """

    def close(self) -> None: ...


ENGINES: dict[str, Callable[[Settings], LlmEngine]] = {
    "llamacpp": lambda settings: LlamaCpp(
        gguf_in(model_dir(settings, settings.llm_model)),
        slots=settings.slots + settings.direct_slots,
        context_tokens=settings.llm_context_tokens,
        threads=settings.llm_threads,
    ),
}


def gguf_in(place: Path) -> Path:
    """The one GGUF file of a model's folder, or the file itself. Raises ConfigurationError when it is not clear."""
    if place.is_file():
        return place
    found = sorted(place.glob("*.gguf"))
    if len(found) != 1:
        raise ConfigurationError(f"{place} holds {len(found)} .gguf files; name one of them in the setting, as a path")
    return found[0]
