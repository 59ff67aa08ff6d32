"""What a chat engine is, and which there are."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry

from daemons.errors import ConfigurationError, without_torch
from daemons.lane import Lane
from daemons.llm.engines.llamacpp import LlamaCpp
from daemons.llm.engines.upstream import Upstream
from daemons.llm.generation import OMNI, TEXT_ONLY, Generated, Generation, Modality
from daemons.llm.threaded import BlockingEngine, Threaded
from daemons.models import model_dir
from daemons.settings import Settings


class LlmEngine(Protocol):
    """Lives in the worker's event loop. `model` and `takes` may be asked for once it is loaded."""

    shares_compute: bool  # one slot's work slows down the others'

    @property
    def model(self) -> str:
        """Its name for clients."""

    @property
    def takes(self) -> frozenset[Modality]:
        """What a message may be made of."""

    async def load(self) -> None:
        """Returns when it has answered one real request. Raises ConfigurationError when it never could."""

    async def generate(self, slot: int, generation: Generation, emit: Callable[[str], None]) -> Generated:
        """Continue the conversation in `slot`, one call at a time for each; cancelled, it has stopped when it raises.

        `emit` gets each piece of the answer, and "" when a part of the prompt has been read. Raises BadRequest when the
        prompt does not fit, AtCapacity when the engine is full, Unavailable when it fails.
        """

    async def check(self) -> None:
        """Returns when what the engine stands on is there. Raises Unavailable when it is not, and says why."""

    async def close(self) -> None: ...


def llamacpp(settings: Settings) -> BlockingEngine:
    return LlamaCpp(
        gguf_in(model_dir(settings, settings.llm_model)),
        slots=settings.slots + settings.direct_slots,
        context_tokens=settings.llm_context_tokens,
        threads=settings.llm_threads,
    )


def transformers(settings: Settings) -> BlockingEngine:
    place = model_dir(settings, settings.llm_model)
    try:
        from daemons.llm.engines.transformers import Transformers  # noqa: PLC0415 - torch takes ten seconds, or is absent
    except ModuleNotFoundError as error:
        raise without_torch("transformers", error) from error
    return Transformers(
        place,
        slots=settings.slots + settings.direct_slots,
        context_tokens=settings.llm_context_tokens,
        threads=settings.llm_threads,
        omni=settings.llm_omni,
    )


def in_threads(make: Callable[[Settings], BlockingEngine], settings: Settings, lane: Lane) -> LlmEngine:
    slots = settings.slots + settings.direct_slots
    return Threaded(lambda: make(settings), lane, model=settings.llm_model, slots=slots)


def upstream(settings: Settings, metrics: CollectorRegistry) -> LlmEngine:
    api_key = settings.vllm_api_key if settings.vllm_runs else settings.llm_upstream_api_key
    return Upstream(
        settings.vllm_url if settings.vllm_runs else settings.llm_upstream_url,
        model=settings.llm_upstream_model,
        api_key=api_key.get_secret_value(),
        takes=OMNI if settings.llm_omni else TEXT_ONLY,
        metrics=metrics,
    )


ENGINES: dict[str, Callable[[Settings, Lane, CollectorRegistry], LlmEngine]] = {
    "llamacpp": lambda settings, lane, _: in_threads(llamacpp, settings, lane),
    "transformers": lambda settings, lane, _: in_threads(transformers, settings, lane),
    "openai": lambda settings, _, metrics: upstream(settings, metrics),
}


def gguf_in(place: Path) -> Path:
    """The one GGUF file of a model's folder, or the file itself. Raises ConfigurationError when it is not clear."""
    if place.is_file():
        return place
    found = sorted(place.glob("*.gguf"))
    if len(found) != 1:
        raise ConfigurationError(f"{place} holds {len(found)} .gguf files; name one of them in the setting, as a path")
    return found[0]
