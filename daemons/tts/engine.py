"""What a text-to-speech engine is, and which there are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from daemons.audio import FloatSamples
from daemons.errors import without_torch
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


class EngineStream(Protocol):
    """One text that an engine speaks while it is written."""

    rests: bool
    """Set it, and nothing more is made until it is cleared."""
    is_speculative: bool
    """Set it, and those of others come first."""

    def write(self, text: str) -> None:
        """More text, in any pieces."""

    def end(self) -> None:
        """No more text follows."""

    def close(self) -> None:
        """Nobody wants it any more: nothing is made of it after the step that is under way."""


class StreamingEngine(Protocol):
    """Speaks several texts at once. All but `open` and what its streams do belongs to one thread."""

    voice: str

    def load(self) -> None:
        """Blocks until the model is in memory and has spoken once. Raises ConfigurationError when it never could."""

    def open(
        self, *, seed: int, on_audio: Callable[[FloatSamples], None], on_end: Callable[[str], None]
    ) -> EngineStream:
        """A stream; it begins with its text, as soon as there is a place. The same text and seed give the same samples.

        `on_audio` is given float32 [n] in ±1 at 24 kHz, packet by packet, and `on_end` why nothing more comes:
        `finished`, `length` (there is no room for more) or `closed`. Both are called in the thread that steps.
        """

    def step(self) -> bool:
        """Do the next part of the work of all streams; whether there was any."""

    def close(self) -> None: ...


def _hibari(settings: Settings) -> TtsEngine:
    from daemons.tts.engines.hibari import Hibari  # noqa: PLC0415 - only what is used is loaded

    return Hibari(settings.tts_voice or "heart", settings.tts_threads)


def _piper(settings: Settings) -> TtsEngine:
    from daemons.tts.engines.piper import Piper  # noqa: PLC0415 - only what is used is loaded

    return Piper(piper_program(settings), model_dir(settings, settings.tts_model))


def piper_program(settings: Settings) -> Path:
    return settings.piper_bin or settings.cache_dir / "piper/bin/piper"


def _qwen3(settings: Settings) -> StreamingEngine:
    place = model_dir(settings, settings.tts_model)
    try:
        from daemons.tts.engines.qwen3.engine import Qwen3  # noqa: PLC0415 - torch takes seconds, or is absent
    except ModuleNotFoundError as error:
        raise without_torch("qwen3", error) from error
    return Qwen3(
        place,
        voice=settings.tts_voice or "ryan",
        device=settings.tts_device,
        quantization=settings.tts_quantization,
        threads=settings.tts_threads,
        slots=settings.slots + settings.direct_slots,
    )


ENGINES: dict[str, Callable[[Settings], TtsEngine]] = {"hibari": _hibari, "piper": _piper}
STREAMING_ENGINES: dict[str, Callable[[Settings], StreamingEngine]] = {"qwen3": _qwen3}
