"""From the caller's audio to the turn machine's windows, and the utterance that is being said."""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from daemons.agent.echo import Echo
from daemons.agent.turn import Window
from daemons.audio import FloatSamples, Framer, Samples, to_float
from daemons.clock import Clock
from daemons.vad import WINDOW_MS, WINDOW_SAMPLES

PRE_ROLL_MS = 300
SPEECH_BEGINS = 0.5  # probability
SPEECH_GOES_ON = 0.35
GAP_MS = 300  # audio missing for so long counts as silence
JITTER_MS = 60  # a window is delivered at most so long after its end
MAX_UTTERANCE_S = 90


class Hearing:
    """Cuts audio into windows and asks `vad` (float32 [512] at 16 kHz → probability) whether each is speech.

    Windows are stamped with their end on the monotonic clock, in ms: counted by samples, so that jitter does not shift
    them, but never later than now nor earlier than JITTER_MS ago; a gap is no speech, nor is what the agent itself is
    saying and the caller's microphone brings back. The utterance has all that came: a word taken for an echo is in it.
    """

    def __init__(self, vad: Callable[[FloatSamples], float], clock: Clock) -> None:
        self._vad = vad
        self._clock = clock
        self._echo = Echo(clock)
        self._framer = Framer(WINDOW_SAMPLES)
        self._at_ms = self._now_ms()
        self._voiced = False
        self._pre_roll: deque[Samples] = deque(maxlen=round(PRE_ROLL_MS / WINDOW_MS) + 4)  # 4: the onset itself
        self._utterance: list[Samples] | None = None

    def plays(self, samples: Samples) -> None:
        """The caller is about to hear int16 [n] at 24 kHz."""
        self._echo.play(samples)

    def push(self, samples: Samples) -> Iterator[Window]:
        """int16 [n] at 16 kHz."""
        for window in self._framer.push(samples):
            yield from self.tick()
            now_ms = self._now_ms()
            self._at_ms = min(max(self._at_ms + WINDOW_MS, now_ms - JITTER_MS), now_ms)
            probability = self._vad(to_float(window))
            self._voiced = probability >= (SPEECH_GOES_ON if self._voiced else SPEECH_BEGINS)
            self._echo.hear(window)
            self._pre_roll.append(window)
            if self._utterance is not None and len(self._utterance) * WINDOW_MS < MAX_UTTERANCE_S * 1000:
                self._utterance.append(window)
            yield Window(self._at_ms, speech=self._voiced and not self._echo.is_heard())

    def tick(self) -> Iterator[Window]:
        """Call it now and then: a silent window where audio is missing (caller muted, network gone)."""
        now_ms = self._now_ms()
        if now_ms - self._at_ms > GAP_MS:
            self._at_ms = now_ms
            self._voiced = False
            yield Window(now_ms, False)

    def open(self) -> None:
        """Collect from here on, with what came just before."""
        self._utterance = list(self._pre_roll)

    def drop(self) -> None:
        self._utterance = None

    def utterance(self) -> Samples:
        """What was collected so far: int16 [n] at 16 kHz."""
        return np.concatenate(self._utterance) if self._utterance else np.zeros(0, np.int16)

    @property
    def utterance_ms(self) -> float:
        """How much was collected so far."""
        return len(self._utterance or ()) * WINDOW_MS

    def _now_ms(self) -> float:
        return self._clock.now_ns() / 1e6
