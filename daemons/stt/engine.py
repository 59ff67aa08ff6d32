"""What a speech-to-text engine is, and which there are."""

import threading
from collections.abc import Callable
from typing import Protocol

from daemons.audio import FloatSamples
from daemons.models import model_dir
from daemons.settings import Settings
from daemons.stt.engines.moonshine import Moonshine


class SttEngine(Protocol):
    languages: tuple[str, ...]  # ISO 639-1
    longest_s: float  # of audio in one call
    shortest_s: float

    def load(self) -> None:
        """Blocks until the model is in memory."""

    def transcribe(self, samples: FloatSamples, cancelled: threading.Event) -> str:
        """The words in `samples`: float32 [n], 16 kHz, between shortest_s and longest_s long.

        Looks at `cancelled` at each step of its decoder; the text is then cut short.
        """


ENGINES: dict[str, Callable[[Settings], SttEngine]] = {
    "moonshine": lambda settings: Moonshine(model_dir(settings, settings.stt_model), settings.stt_threads),
}
