"""What a speech-to-text engine is, and which there are."""

from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry

from daemons.audio import FloatSamples
from daemons.lane import Lane
from daemons.models import model_dir
from daemons.settings import Settings
from daemons.stt.asked import Asked
from daemons.stt.engines.moonshine import Moonshine
from daemons.stt.engines.omni import Omni
from daemons.stt.threaded import Threaded


class SttEngine(Protocol):
    """Lives in the worker's event loop. `model` may be asked for once it is loaded."""

    languages: tuple[str, ...]  # ISO 639-1; empty when it is for its model to know
    longest_s: float  # of audio in one call

    @property
    def model(self) -> str:
        """Its name for clients."""

    async def load(self) -> None:
        """Returns when it has heard one real request. Raises ConfigurationError when it never could."""

    async def transcribe(self, samples: FloatSamples, asked: Asked) -> str:
        """The words in `samples`: float32 [n], 16 kHz, at most longest_s long.

        Cancelled, it has stopped when it raises. Raises BadRequest, AtCapacity or Unavailable.
        """

    async def check(self) -> None:
        """Returns when what the engine stands on is there. Raises Unavailable when it is not, and says why."""

    async def close(self) -> None: ...


def moonshine(settings: Settings, lane: Lane, metrics: CollectorRegistry) -> SttEngine:
    model = Moonshine(model_dir(settings, settings.stt_model), settings.stt_threads)
    return Threaded(model, lane, metrics, model=f"moonshine/{settings.stt_model}")


def omni(settings: Settings, _: Lane, __: CollectorRegistry) -> SttEngine:
    own_llm = f"http://127.0.0.1:{settings.llm_port}/v1"
    key = settings.stt_omni_api_key.get_secret_value()
    return Omni(settings.stt_omni_url or own_llm, model=settings.stt_omni_model, api_key=key)


ENGINES: dict[str, Callable[[Settings, Lane, CollectorRegistry], SttEngine]] = {
    "moonshine": moonshine,
    "omni": omni,
}
