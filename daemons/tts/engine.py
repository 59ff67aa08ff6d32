"""What a text-to-speech engine is, and which there are."""

from collections.abc import Callable, Iterator
from typing import Protocol

from daemons.audio import FloatSamples
from daemons.settings import Settings
from daemons.tts.engines.hibari import Hibari


class TtsEngine(Protocol):
    voice: str

    def load(self) -> None:
        """Blocks until the model is in memory."""

    def synthesize(self, text: str, *, seed: int, speed: float) -> Iterator[FloatSamples]:
        """Say `text`: float32 [n] in ±1 at 24 kHz, one array a step; who stops asking has cancelled.

        The same text, seed and speed give the same samples. Nothing at all comes of text that the voice cannot say.
        """


ENGINES: dict[str, Callable[[Settings], TtsEngine]] = {
    "hibari": lambda settings: Hibari(settings.tts_voice, settings.tts_threads),
}
