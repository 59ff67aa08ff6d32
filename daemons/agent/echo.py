"""The agent's own voice, taken out of what the caller's microphone hears: a speakerphone must not interrupt itself."""

from collections import deque

import numpy as np
from livekit import rtc

from daemons.agent.playout import QUEUE_MS
from daemons.audio import STT_RATE_HZ, TTS_RATE_HZ, Framer, Samples

FRAME_S = 0.01  # what WebRTC's audio processing takes at a time
WAITING_FRAMES = 50  # a microphone that is silent for longer has missed them
AHEAD_FRAMES = round(QUEUE_MS / 1000 / FRAME_S)  # playout sends them so much sooner than they leave
SETTLED_FRAMES = 100  # more than those that wait all this time are late, whatever the jitter


class EchoCanceller:
    """WebRTC's AEC3, which finds the way from the loudspeaker to the microphone and how long it is by itself."""

    def __init__(self) -> None:
        self._processing = rtc.AudioProcessingModule(echo_cancellation=True)
        self._played_frames = Framer(round(TTS_RATE_HZ * FRAME_S))
        self._heard_frames = Framer(round(STT_RATE_HZ * FRAME_S))
        self._played: deque[Samples] = deque(maxlen=WAITING_FRAMES)
        self._waiting: deque[int] = deque(maxlen=SETTLED_FRAMES)  # how many frames did, at each of the last ones heard

    def play(self, samples: Samples) -> None:
        """int16 [n] at 24 kHz that the caller is about to hear."""
        self._played.extend(self._played_frames.push(samples))

    def take_back(self, samples: int) -> None:
        """The last so many that were to be played will not be."""
        for _ in range(min(round(samples / TTS_RATE_HZ / FRAME_S), len(self._played))):
            self._played.pop()

    def clean(self, samples: Samples) -> Samples:
        """The caller's audio, int16 [n] at 16 kHz, in whole frames of 10 ms; the rest comes with the next."""
        cleaned = [self._without_echo(frame) for frame in self._heard_frames.push(samples)]
        return np.concatenate(cleaned) if cleaned else np.zeros(0, np.int16)

    def _without_echo(self, heard: Samples) -> Samples:
        self._catch_up()
        played = self._played.popleft() if self._played else np.zeros(round(TTS_RATE_HZ * FRAME_S), np.int16)
        self._processing.process_reverse_stream(_frame(played, TTS_RATE_HZ))
        frame = _frame(heard, STT_RATE_HZ)
        self._processing.process_stream(frame)
        return np.frombuffer(frame.data, np.int16)

    def _catch_up(self) -> None:
        """An echo cannot be found before its sound: a microphone that began late, or is slow, must not stay behind.

        Where the agent is silent now and then it catches up by itself; under ambience it would not.
        """
        self._waiting.append(len(self._played))
        if len(self._waiting) == SETTLED_FRAMES and (late := min(self._waiting) - AHEAD_FRAMES) > 0:
            for _ in range(late):
                self._played.popleft()
            self._waiting.clear()


def _frame(samples: Samples, rate_hz: int) -> rtc.AudioFrame:
    return rtc.AudioFrame(samples.tobytes(), rate_hz, 1, len(samples))
