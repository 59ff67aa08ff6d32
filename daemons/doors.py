"""What all HTTP doors of the box share: errors as JSON sentences, size limits, refusal while loading."""

import logging
from collections.abc import Collection
from typing import Literal, NotRequired

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler
from typing_extensions import TypedDict

from daemons.errors import AtCapacity, BadRequest, CallboxError, Fenced, LeaseLost, Unavailable

log = logging.getLogger(__name__)
RETRY_AFTER_S = 2
MAX_BODY_BYTES = 32 * 2**20
MAX_REQUEST_LINE_BYTES = 8190  # where a service asks for no more
MAX_HEADER_BYTES = 8190  # of one, with or without its name: that differs between aiohttp's versions
MAX_HEADERS = 128

STATUS: dict[type[CallboxError], tuple[int, str]] = {
    BadRequest: (400, "invalid_request_error"),
    Fenced: (409, "fenced"),
    LeaseLost: (409, "lease_lost"),
    AtCapacity: (503, "at_capacity"),
    Unavailable: (503, "unavailable"),
}


class ErrorSaid(TypedDict):
    message: str
    type: str
    code: str


class ErrorBody(TypedDict):
    """Any error, in the OpenAI shape, so that its clients show the sentence."""

    error: ErrorSaid


class Model(TypedDict):
    """As OpenAI's clients list it; `created` is when it was loaded, in seconds since 1970."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["callbox"]
    input_modalities: NotRequired[list[str]]


class ModelList(TypedDict):
    object: Literal["list"]
    data: list[Model]


def model_list(name: str, loaded_at: int, takes: Collection[str] | None = None) -> ModelList:
    """The one model of a worker; `takes` are its input modalities, where it chats."""
    model: Model = {"id": name, "object": "model", "created": loaded_at, "owned_by": "callbox"}
    if takes is not None:
        model["input_modalities"] = sorted(takes)
    return {"object": "list", "data": [model]}


def error_body(kind: str, message: str) -> ErrorBody:
    return {"error": {"message": message, "type": kind, "code": kind}}


def error_response(status: int, kind: str, message: str) -> web.Response:
    headers = {hdrs.RETRY_AFTER: str(RETRY_AFTER_S)} if status == 503 else None
    return web.json_response(error_body(kind, message), status=status, headers=headers)


@web.middleware
async def errors_in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        message = error.text or error.reason
        if error.status == 413:
            message = f"the body is larger than {MAX_BODY_BYTES} bytes"
        response = error_response(error.status, "invalid_request_error", message)
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers[hdrs.ALLOW] = ", ".join(sorted(error.allowed_methods))
        return response
    except web.RequestPayloadError as error:
        return error_response(400, "invalid_request_error", f"the body cannot be read: {first_line(error)}")
    except CallboxError as error:
        status, kind = STATUS.get(type(error), (500, "error"))
        return error_response(status, kind, str(error))
    except ConnectionError:
        raise  # the client went away; aiohttp knows what to do
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return error_response(500, "internal_error", "this worker failed; its log says more")


def first_line(error: Exception) -> str:
    """Of what aiohttp's parser says, which goes on with what it was parsing."""
    if isinstance(error.__cause__, HttpProcessingError):
        error = error.__cause__
    said = error.message if isinstance(error, HttpProcessingError) else str(error)
    return said.split("\n")[0].rstrip(":") or type(error).__name__


def _in_one_line(record: logging.LogRecord) -> bool:
    """What is no HTTP, or too long, is refused outside of any door: no failure of ours, and worth no traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError | web.RequestPayloadError):
        record.msg, record.args = "%s; it was refused: %r", (record.getMessage(), first_line(error))
        record.exc_info = None
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
    return True


http_log = logging.getLogger("daemons.http")  # where aiohttp's server writes
http_log.addFilter(_in_one_line)
