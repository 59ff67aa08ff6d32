"""What the HTTP doors take and answer, but for the audio."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypedDict

from daemons.tts.encode import FORMATS, AudioFormat
from daemons.tts.speech import LONGEST_TEXT_CHARS

STREAM_ID, SAMPLE_RATE = "X-Stream-Id", "X-Sample-Rate"  # headers of audio; the first is what /tts/stats asks for
LONGEST_INPUT_CHARS = 4096  # as at OpenAI
# Clients of OpenAI's own service name its voices; here they all mean the one that is loaded.
OPENAI_VOICES = frozenset(
    ["alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse"]
)

Speed = Annotated[float, Field(ge=0.5, le=2.0)]


class StreamBody(BaseModel):
    """POST /tts/stream"""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT_CHARS)]
    speaker: str | None = None
    speed: Speed = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class SpeechBody(BaseModel):
    """POST /v1/audio/speech, as OpenAI's clients send it; what is not named here is ignored."""

    input: Annotated[str, Field(min_length=1, max_length=LONGEST_INPUT_CHARS)]
    voice: str | None = None
    response_format: AudioFormat = "mp3"
    speed: Speed = 1.0
    stream: bool = False
    stream_format: Literal["audio"] = "audio"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("response_format", mode="before")
    @classmethod
    def _can_be_made(cls, name: object) -> object:
        if isinstance(name, str) and name not in FORMATS:
            raise ValueError(f"{name!r} cannot be made here; {', '.join(FORMATS)} can")
        return name


class Figures(TypedDict):
    """Of a stream that came to its end; `stages` in ms."""

    samples: int
    ttfa_ms: float
    rtf: float
    stages: dict[str, float]


class Config(TypedDict):
    """What VibeVoice's page asks for first."""

    voices: list[str]
    default_voice: str
