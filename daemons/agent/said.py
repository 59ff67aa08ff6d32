"""What the caller said: words, or their sound where the model itself hears."""

import base64
from dataclasses import dataclass
from typing import Any, Self

from daemons.audio import STT_RATE_HZ, Pcm, Samples, wav_bytes

LONGEST_S = 29.0  # models of this kind hear 30 s; of what is longer the end counts
UNWRITTEN = "(The caller said something that was not written down.)"

Content = str | list[dict[str, Any]]  # of an OpenAI chat message


@dataclass(eq=False, slots=True)
class Spoken:
    """An utterance as 16-bit WAV at 16 kHz, and what the camera saw at its end.

    `words` are what it says, once somebody has written that down; "" when it holds none.
    """

    wav_base64: str
    duration_ms: float
    picture_url: str | None = None  # data:image/jpeg;base64,…
    words: str | None = None

    @classmethod
    def of(cls, samples: Samples, picture_url: str | None = None) -> Self:
        """`samples`: int16 [n] at 16 kHz."""
        pcm = Pcm(samples[-round(LONGEST_S * STT_RATE_HZ) :], STT_RATE_HZ)
        return cls(base64.b64encode(wav_bytes(pcm)).decode(), pcm.duration_ms, picture_url)

    @property
    def asked(self) -> Content:
        """As the message that is to be answered."""
        picture = {"type": "image_url", "image_url": {"url": self.picture_url}}
        return [*self.sound, picture] if self.picture_url else self.sound

    @property
    def told(self) -> Content:
        """As a message of the past: its words, and while they are not known its sound."""
        if self.words is not None:
            return self.words
        return self.sound if self.wav_base64 else UNWRITTEN

    @property
    def sound(self) -> list[dict[str, Any]]:
        return [{"type": "input_audio", "input_audio": {"data": self.wav_base64, "format": "wav"}}]

    def fall_silent(self) -> None:
        """Let go of sound and picture: what a call remembers is bounded, and so is a request."""
        self.wav_base64 = ""
        self.picture_url = None


Said = str | Spoken
