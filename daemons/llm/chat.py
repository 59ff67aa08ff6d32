"""OpenAI's chat wire: what a request may say, and the shapes of the answers."""

import base64
import binascii
import json
import secrets
import time
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, AliasChoices, BaseModel, Field, field_validator, model_validator
from typing_extensions import TypedDict

from daemons.doors import ErrorBody
from daemons.errors import BadRequest
from daemons.llm.generation import Audio, ChatMessage, Generated, Generation, Image, Modality, Part, Reason

DEFAULT_MAX_TOKENS = 150
MAX_TOKENS = 32_768
MAX_MESSAGES = 512
MAX_PARTS = 64  # of one message
MAX_CHARS = 200_000  # of all text
MAX_MEDIA_BYTES = 24 * 2**20  # of all sound and pictures, as they are sent
MAX_STOPS = 8
MAX_STOP_CHARS = 256

Role = Literal["system", "developer", "user", "assistant", "tool"]


class TextPart(BaseModel):
    type: Literal["text"]
    text: str

    def plain(self) -> Part:
        return self.text


class AudioFile(BaseModel):
    data: str
    format: Literal["wav", "mp3"]

    @field_validator("data")
    @classmethod
    def _is_base64(cls, data: str) -> str:
        try:
            base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"this is not base64: {error}") from None
        return data


class AudioPart(BaseModel):
    type: Literal["input_audio"]
    input_audio: AudioFile

    def plain(self) -> Part:
        return Audio(self.input_audio.data, self.input_audio.format)


class ImageUrl(BaseModel):
    url: Annotated[str, Field(pattern=r"^data:image/[a-z+.-]+;base64,")]  # nothing is fetched from elsewhere


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: ImageUrl

    def plain(self) -> Part:
        return Image(self.image_url.url)


AnyPart = Annotated[TextPart | AudioPart | ImagePart, Field(discriminator="type")]


class Message(BaseModel):
    role: Role
    content: str | Annotated[list[AnyPart], Field(max_length=MAX_PARTS)] | None = None

    def plain(self) -> ChatMessage:
        role = "system" if self.role == "developer" else self.role
        if self.content is None or isinstance(self.content, str):
            return ChatMessage(role, self.content or "")
        return ChatMessage(role, tuple(part.plain() for part in self.content))


class StreamOptions(BaseModel):
    include_usage: bool = False


Stop = Annotated[str, Field(max_length=MAX_STOP_CHARS)]


def _none_to_be_had(wanted: bool) -> bool:
    if wanted:
        raise ValueError("they are not to be had here")
    return wanted


class ChatBody(BaseModel):
    """POST /v1/chat/completions; what is not named here and would not change the answer is ignored."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    # 0 only reads the prompt into the cache of the caller's slot
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=2)] | None = Field(
        None, validation_alias=AliasChoices("repeat_penalty", "repetition_penalty")
    )
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    n: Annotated[int, Field(ge=1, le=1)] | None = None
    # Would change the answer, and are not to be had here
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: Annotated[bool, AfterValidator(_none_to_be_had), Field(json_schema_extra={"const": False})] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None

    @model_validator(mode="after")
    def _is_plain_chat(self) -> "ChatBody":
        if self.response_format is not None and self.response_format.get("type", "text") != "text":
            raise ValueError("response_format: only text is answered here")
        messages = [message.plain() for message in self.messages]
        if sum(len(message.text) for message in messages) > MAX_CHARS:
            raise ValueError(f"the messages have more than {MAX_CHARS} characters")
        if sum(_media_bytes(part) for message in messages for part in message.parts) > MAX_MEDIA_BYTES:
            raise ValueError(f"the sound and the pictures have more than {MAX_MEDIA_BYTES} bytes")
        try:
            for text in (message.text for message in messages):
                text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"a message is not Unicode text: {error.reason}") from None
        return self

    def generation(self, takes: frozenset[Modality]) -> Generation:
        """For an engine whose messages may hold `takes`. Raises BadRequest for other parts."""
        messages = [message.plain() for message in self.messages]
        for part in (part for message in messages for part in message.parts):
            if (kind := _modality(part)) not in takes:
                raise BadRequest(f"this engine takes {' and '.join(sorted(takes))}; {_PART_OF[kind]} is none of it")
        limits = [limit for limit in (self.max_completion_tokens, self.max_tokens) if limit is not None]
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Generation(
            messages=messages,
            max_tokens=limits[0] if limits else DEFAULT_MAX_TOKENS,
            temperature=self.temperature,
            top_p=self.top_p,
            repeat_penalty=self.repeat_penalty,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            stop=[text for text in stop if text],
            seed=None if self.seed is None else self.seed % 2**32,
        )


_PART_OF: dict[Modality, str] = {"text": "text", "audio": "input_audio", "image": "image_url"}


def _modality(part: Part) -> Modality:
    return "text" if isinstance(part, str) else "audio" if isinstance(part, Audio) else "image"


def _media_bytes(part: Part) -> int:
    return 0 if isinstance(part, str) else len(part.base64 if isinstance(part, Audio) else part.url)


class CachedTokens(TypedDict):
    cached_tokens: int


class Usage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Answer(TypedDict):
    role: Literal["assistant"]
    content: str


class Choice(TypedDict):
    index: Literal[0]
    message: Answer
    finish_reason: Reason


class Completion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class Delta(TypedDict, total=False):
    role: Literal["assistant"]
    content: str


class ChunkChoice(TypedDict):
    index: Literal[0]
    delta: Delta
    finish_reason: Reason | None


class Chunk(TypedDict):
    """An event of a stream. Once usage is asked for, each has the field, and the last one, without choices, a value."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: NotRequired[Usage | None]


class Reply:
    """The shapes of one answer, whole or in chunks."""

    def __init__(self, model: str, *, streams_usage: bool = False) -> None:
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._model = model
        self._streams_usage = streams_usage

    def whole(self, text: str, generated: Generated) -> Completion:
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": generated.reason}
            ],
            "usage": usage(generated),
        }

    def chunk(self, delta: Delta, finish_reason: Reason | None = None) -> bytes:
        return self._event([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def usage_chunk(self, generated: Generated) -> bytes:
        return self._event([], usage(generated))

    def _event(self, choices: list[ChunkChoice], used: Usage | None = None) -> bytes:
        chunk: Chunk = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": choices,
        }
        if used is not None or self._streams_usage:
            chunk["usage"] = used
        return event(chunk)


DONE = "[DONE]"  # the data of a stream's last event


def event(data: Chunk | ErrorBody | str) -> bytes:
    said = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {said}\n\n".encode()


def usage(generated: Generated) -> Usage:
    return {
        "prompt_tokens": generated.prompt_tokens,
        "completion_tokens": generated.completion_tokens,
        "total_tokens": generated.prompt_tokens + generated.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": generated.cached_tokens},
    }
