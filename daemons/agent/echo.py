"""The agent's own voice, taken out of what the caller's microphone hears: a speakerphone must not interrupt itself."""

from collections import deque

import numpy as np
from livekit import rtc

from daemons.audio import STT_RATE_HZ, TTS_RATE_HZ, Framer, Samples

FRAME_S = 0.01  # what WebRTC's audio processing takes at a time
WAITING_FRAMES = 50  # a microphone that is silent for longer has missed them


class EchoCanceller:
    """WebRTC's AEC3, which finds the way from the loudspeaker to the microphone and how long it is by itself."""

    def __init__(self) -> None:
        self._processing = rtc.AudioProcessingModule(echo_cancellation=True)
        self._played_frames = Framer(round(TTS_RATE_HZ * FRAME_S))
        self._heard_frames = Framer(round(STT_RATE_HZ * FRAME_S))
        self._played: deque[Samples] = deque(maxlen=WAITING_FRAMES)

    def play(self, samples: Samples) -> None:
        """int16 [n] at 24 kHz that the caller is about to hear."""
        self._played.extend(self._played_frames.push(samples))

    def clear(self) -> None:
        """What was to be played and has not been heard yet will not be."""
        self._played.clear()

    def clean(self, samples: Samples) -> Samples:
        """The caller's audio, int16 [n] at 16 kHz, in whole frames of 10 ms; the rest comes with the next."""
        cleaned = [self._without_echo(frame) for frame in self._heard_frames.push(samples)]
        return np.concatenate(cleaned) if cleaned else np.zeros(0, np.int16)

    def _without_echo(self, heard: Samples) -> Samples:
        played = self._played.popleft() if self._played else np.zeros(round(TTS_RATE_HZ * FRAME_S), np.int16)
        self._processing.process_reverse_stream(_frame(played, TTS_RATE_HZ))
        frame = _frame(heard, STT_RATE_HZ)
        self._processing.process_stream(frame)
        return np.frombuffer(frame.data, np.int16)


def _frame(samples: Samples, rate_hz: int) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), rate_hz, 1, len(samples))
