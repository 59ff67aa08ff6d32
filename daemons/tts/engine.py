"""What a text-to-speech engine is, and which there are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from daemons.audio import FloatSamples
from daemons.models import model_dir
from daemons.settings import Settings


@dataclass(frozen=True, slots=True)
class Phrase:
    """What is said in one piece, fit to be said, and what of its sentence is said apart from it."""

    text: str
    before: str = ""
    after: str | None = None  # "" when it goes on but is not known how; None: it ends here

    @property
    def is_open(self) -> bool:
        return self.after is not None


class TtsEngine(Protocol):
    voice: str
    overlap: int
    """How many samples of audio the pieces of a sentence share. Once it is loaded an engine says so, if it hears to
    how a phrase goes on: then that audio has no pause at an open end, and half of the overlap lies on either side of
    the border. 0: each phrase is said for itself."""

    def load(self) -> None:
        """Blocks until the model is in memory."""

    def synthesize(self, phrase: Phrase, *, seed: int, speed: float) -> Iterator[FloatSamples]:
        """Say `phrase.text`: float32 [n] in ±1 at 24 kHz, one array a step; who stops asking has cancelled.

        The same phrase, seed and speed give the same samples. Nothing at all comes of text that the voice cannot say.
        """

    def close(self) -> None:
        """End what it has started; nothing is said any more."""


def _hibari(settings: Settings) -> TtsEngine:
    from daemons.tts.engines.hibari import Hibari  # noqa: PLC0415 - only what is used is loaded

    return Hibari(settings.tts_voice, settings.tts_threads)


def _piper(settings: Settings) -> TtsEngine:
    from daemons.tts.engines.piper import Piper  # noqa: PLC0415 - only what is used is loaded

    return Piper(piper_program(settings), model_dir(settings, settings.tts_model))


def piper_program(settings: Settings) -> Path:
    return settings.piper_bin or settings.cache_dir / "piper/bin/piper"


ENGINES: dict[str, Callable[[Settings], TtsEngine]] = {"hibari": _hibari, "piper": _piper}
