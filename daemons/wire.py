"""What crosses a process border: header names, topics, message types and event names."""

import struct
from enum import StrEnum
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

# Headers that say under which lease a request is made
CALL_ID = "X-Call-Id"
SLOT = "X-Slot"
FENCE = "X-Fence"
BOOT = "X-Boot"

# A request's `Priority`, where its body has no place for one; committed without it
PRIORITY = "X-Priority"

# Proves to the token server whose call it is
CALL_SECRET = "X-Call-Secret"  # noqa: S105 - a header's name

# LiveKit conventions
AGENT_STATE_ATTRIBUTE = "lk.agent.state"
TRANSCRIPTION_TOPIC = "lk.transcription"
CHAT_TOPIC = "lk.chat"
TRACE_TOPIC = "callbox.trace"
ENDED_TOPIC = "callbox.ended"  # the agent's last word: CallEnded as JSON
AGENT_IDENTITY = "agent"
CALLER_IDENTITY = "caller"
RECORDED = "callbox.recorded"  # attribute of a caller whose call is: "true"

AgentState = Literal["initializing", "listening", "thinking", "speaking"]
Priority = Literal["committed", "speculative"]
Role = Literal["stt", "llm", "tts", "agent"]
CALL_ROLES: tuple[Role, ...] = ("agent", "stt", "llm", "tts")

# Who may speak in a call: what every caller gets, and what is there for the operator alone
TtsRole = Literal["tts", "tts-lab"]
TTS_ROLES: tuple[TtsRole, ...] = ("tts", "tts-lab")
TTS_LAB: Final = "tts-lab"  # the lab's own, which spoils what it says on purpose


def work_of(role: str) -> str:
    """What workers of a role do: those of `tts-lab` do what those of `tts` do, in calls that ask for them by name."""
    return role.partition("-")[0]


TraceEvent = Literal[
    "user_started",
    "user_stopped",
    "stt_requested",
    "stt_final",
    "llm_requested",
    "llm_first_token",
    "tts_requested",
    "tts_first_chunk",
    "eot_committed",
    "first_frame_published",
    "playout_held",  # with how many samples were sent so far, as last_frame_published
    "playout_resumed",
    "reply_finished",
    "barge_in",
    "cancel_requested",
    "last_frame_published",
    "captioned",  # the caller's words are known, where no STT wrote them down before the answer
    "understood",  # with the fields of the agent's Understanding
    "not_understood",
]


class ProgramEvent(StrEnum):
    """What the listener writes into the audit log about a program, which stands in the field `program`."""

    FATAL = "program_fatal"  # supervisord has given up on it; the listener will start it again
    STARTED_AGAIN = "program_started_again"  # it runs, after program_fatal or crash_loop
    WANTS_NO_RESTART = "program_wants_no_restart"  # it ended with the exit code that says so: a person must look
    CRASH_LOOP = "crash_loop"  # it ends again and again and is held back for a while; repeated each time it is held
    CRASH_LOOP_OVER = "crash_loop_over"  # it stays up again
    STALLED = "stalled"  # not live for several probes; its worker drains, then it is restarted
    RESTARTED = "program_restarted"  # the end of a stall: it got its signal


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# WS /stt/live. Binary from the client: PCM16-LE mono 16 kHz, added to the utterance that `start` opened.


class SttStart(Message):
    """Open an utterance; what an earlier one still held is dropped.

    With `partials`, SttPartial tells now and then what it says so far, while the worker has nothing better to do.
    """

    type: Literal["start"] = "start"
    utterance: int
    partials: bool = False


class SttCommit(Message):
    """Transcribe what the open utterance holds so far; more audio may follow, and another commit."""

    type: Literal["commit"] = "commit"
    id: int
    priority: Priority = "committed"


class SttCancel(Message):
    """Stop the commits under way and drop the open utterance."""

    type: Literal["cancel"] = "cancel"


SttRequest = Annotated[SttStart | SttCommit | SttCancel, Field(discriminator="type")]
stt_request: TypeAdapter[SttRequest] = TypeAdapter(SttRequest)


class SttPartial(Message):
    """What the open utterance says so far; may still change."""

    type: Literal["partial"] = "partial"
    utterance: int
    text: str


class SttFinal(Message):
    """The answer to commit `id`."""

    type: Literal["final"] = "final"
    utterance: int
    id: int
    text: str
    audio_ms: float
    compute_ms: float


class StreamError(Message):
    """A stream's explicit end by failure; `id` is the request it ends, None the whole stream."""

    type: Literal["error"] = "error"
    id: int | None = None
    message: str


SttReply = Annotated[SttPartial | SttFinal | StreamError, Field(discriminator="type")]
stt_reply: TypeAdapter[SttReply] = TypeAdapter(SttReply)


# WS /tts/live. Text goes in as it is written; binary from the server: AudioHeader, then PCM16-LE mono 24 kHz.


def recording_of(call: str, turn: int) -> str:
    """The name of the trace under which what is said in a turn of a recorded call is kept."""
    return f"{call}.{turn}"


class TtsText(Message):
    """More text of request `id`; the first one opens it.

    When the first one names a trace, what is made for the request can be had from /tts/traces/<trace>.wav for a while.
    """

    type: Literal["text"] = "text"
    id: int
    text: Annotated[str, Field(max_length=4000)]
    priority: Priority = "committed"
    trace: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] | None = None


class TtsFlush(Message):
    """Speak what is buffered, though no sentence has ended."""

    type: Literal["flush"] = "flush"
    id: int


class TtsEnd(Message):
    """No more text of request `id`; `TtsDone` follows its last audio."""

    type: Literal["end"] = "end"
    id: int


class TtsCancel(Message):
    """Stop request `id` now; `TtsDone` with reason `cancelled` follows at once."""

    type: Literal["cancel"] = "cancel"
    id: int


TtsRequest = Annotated[TtsText | TtsFlush | TtsEnd | TtsCancel, Field(discriminator="type")]
tts_request: TypeAdapter[TtsRequest] = TypeAdapter(TtsRequest)


class TtsSegment(Message):
    """The audio from sample `from_sample` on, `samples` long, says `text`; sent before that audio."""

    type: Literal["segment"] = "segment"
    id: int
    text: str
    from_sample: int
    samples: int


class TtsDone(Message):
    type: Literal["done"] = "done"
    id: int
    reason: Literal["finished", "length", "cancelled"]
    """`length`: the engine has no room for so long a text, and its end was not said."""
    samples: int
    ttfa_ms: float | None
    rtf: float | None
    stages: dict[str, float]


TtsReply = Annotated[TtsSegment | TtsDone | StreamError, Field(discriminator="type")]
tts_reply: TypeAdapter[TtsReply] = TypeAdapter(TtsReply)

TTS_FRAME_SAMPLES = 512


class AudioHeader(NamedTuple):
    """In front of each binary frame of /tts/live, little-endian: request id (u32), offset of its first sample (u64)."""

    id: int
    from_sample: int

    def pack(self) -> bytes:
        return _AUDIO_HEADER.pack(*self)

    @classmethod
    def split(cls, frame: bytes) -> "tuple[AudioHeader, bytes]":
        """(header, PCM bytes). Raises struct.error when the frame is shorter than a header."""
        return cls(*_AUDIO_HEADER.unpack_from(frame)), frame[_AUDIO_HEADER.size :]


_AUDIO_HEADER = struct.Struct("<IQ")


# The token server


class CallGranted(Message):
    """201: the agent waits in the room.

    `camera`: the token allows one, and the model sees; for who asks with `?camera=true`, at each door of the call.
    `recorded`: what is said to the caller is kept for a while, for who asks with `?record=true`.
    """

    status: Literal["granted"] = "granted"
    call_id: str
    secret: str
    room: str
    url: str
    token: str
    expires_at: float
    camera: bool = False
    recorded: bool = False


class CallQueued(Message):
    """202: ask again with the secret, or listen on the call's SSE."""

    status: Literal["queued"] = "queued"
    call_id: str
    secret: str
    position: int
    eta_s: float | None


Refusal = Literal["full", "unavailable", "forbidden", "not_found", "bad_request"]


class CallRefused(Message):
    """Any error: what happened and what to do, in words."""

    status: Literal["refused"] = "refused"
    error: Refusal
    message: str
    retry_after_s: float | None = None


EndReason = Literal[
    "caller_left",
    "caller_absent",
    "idle",
    "longest_call",
    "agent_stopping",
    "registry_lost",
    "worker_lost",
    "media_lost",
    "failed",
]


class CallEnded(Message):
    """Why the agent ends the call, and the sentence that the page shows."""

    reason: EndReason
    message: str
