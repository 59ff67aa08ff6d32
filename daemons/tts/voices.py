"""Which voice a worker has: its engine, and how that is made to speak."""

from collections.abc import Callable

from daemons.errors import EXIT_FAILED
from daemons.lane import Lane
from daemons.settings import Settings
from daemons.tts.engine import ENGINES, STREAMING_ENGINES
from daemons.tts.phrases import PhraseVoice
from daemons.tts.speech import SpeechMetrics, Voice
from daemons.tts.streaming import StreamVoice


def voice(settings: Settings, lane: Lane, metrics: SpeechMetrics, stop: Callable[[int, str], None]) -> Voice:
    """`stop` ends the program, with an exit code and for a reason."""
    if (make := STREAMING_ENGINES.get(settings.tts_engine)) is not None:
        return StreamVoice(make(settings), lane, metrics, lambda why: stop(EXIT_FAILED, why))
    return PhraseVoice(ENGINES[settings.tts_engine](settings), lane, metrics)
