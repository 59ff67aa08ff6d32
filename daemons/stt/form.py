"""The form of POST /v1/audio/transcriptions, read as it comes and no further than its limits."""

import asyncio
import re
from dataclasses import dataclass
from typing import Literal, get_args

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from daemons.doors import first_line
from daemons.errors import BadRequest
from daemons.streams import BODY_TIMEOUT_S

LONGEST_FILE_BYTES = 25 * 2**20  # as at OpenAI
LONGEST_FIELD_BYTES = 4096
MOST_FIELDS = 32
READ_BYTES = 64 * 1024
TRUE, FALSE = ("true", "1"), ("false", "0")
LANGUAGE_CODE, REGION = "[A-Za-z]{2,3}", "[-_][A-Za-z0-9_-]+"
TIMESTAMPS = ("timestamp_granularities[]", "timestamp_granularities")  # OpenAI's name, and the plain one
GRANULARITY = "segment"

Format = Literal["json", "text", "verbose_json"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(slots=True)
class Upload:
    """What is not named here is ignored."""

    file: bytes = b""
    format: Format = "json"
    language: str | None = None  # ISO 639-1
    prompt: str = ""
    streams: bool = False


async def read_upload(request: web.Request) -> Upload:
    """Raises BadRequest."""
    if not request.content_type.startswith("multipart/"):
        raise BadRequest("send the audio as a multipart form with the field `file`")
    if (request.content_length or 0) > LONGEST_FILE_BYTES + MOST_FIELDS * LONGEST_FIELD_BYTES:
        raise BadRequest(f"the form is too large: `file` may have {LONGEST_FILE_BYTES} bytes")
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read(request)
    except TimeoutError:
        raise BadRequest(f"the form did not arrive within {BODY_TIMEOUT_S:g} s") from None
    except (ValueError, AssertionError, HttpProcessingError) as error:  # what aiohttp's parser makes of such forms
        raise BadRequest(f"the form cannot be read: {first_line(error)}") from None


async def _read(request: web.Request) -> Upload:
    upload, has_file, fields = Upload(), False, 0
    async for part in await request.multipart():
        fields += 1
        if fields > MOST_FIELDS:
            raise BadRequest(f"the form has more than {MOST_FIELDS} fields")
        if not isinstance(part, BodyPartReader):
            raise BadRequest("a form inside the form is not understood")
        if part.name == "file":
            upload.file, has_file = await _part(part, LONGEST_FILE_BYTES), True
        else:
            _take(upload, part.name or "", (await _part(part, LONGEST_FIELD_BYTES)).decode().strip())
    if not has_file:
        raise BadRequest("the form has no `file`")
    return upload


async def _part(part: BodyPartReader, longest_bytes: int) -> bytes:
    content = bytearray()
    while chunk := await part.read_chunk(READ_BYTES):
        content += chunk
        if len(content) > longest_bytes:
            raise BadRequest(f"the field `{part.name}` is larger than {longest_bytes} bytes")
    return bytes(content)


def _take(upload: Upload, name: str, value: str) -> None:
    match name:
        case "language" if value:
            language = re.fullmatch(f"({LANGUAGE_CODE})({REGION})?", value)
            if not language:
                raise BadRequest(f"language {value!r} is no code such as en")
            upload.language = language[1].lower()
        case "prompt":
            upload.prompt = value
        case "response_format":
            if value not in FORMATS:
                raise BadRequest(f"response_format {value!r} is not one of {', '.join(FORMATS)}")
            upload.format = value
        case "stream":
            if value.lower() not in (*TRUE, *FALSE):
                raise BadRequest(f"stream {value!r} is neither true nor false")
            upload.streams = value.lower() in TRUE
        case _ if name in TIMESTAMPS and value != GRANULARITY:
            raise BadRequest(f"{name} {value!r}: only `{GRANULARITY}` is told here")
        case _:
            pass
