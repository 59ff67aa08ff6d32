"""What all HTTP doors of the box share: errors as JSON sentences, size limits, refusal while loading."""

import logging

from aiohttp import web
from aiohttp.typedefs import Handler

from daemons.errors import AtCapacity, BadRequest, CallboxError, Fenced, LeaseLost, Unavailable

log = logging.getLogger(__name__)
RETRY_AFTER_S = 2
MAX_BODY_BYTES = 32 * 2**20

_STATUS: dict[type[CallboxError], tuple[int, str]] = {
    BadRequest: (400, "invalid_request_error"),
    Fenced: (409, "fenced"),
    LeaseLost: (409, "lease_lost"),
    AtCapacity: (503, "at_capacity"),
    Unavailable: (503, "unavailable"),
}


def error_response(status: int, kind: str, message: str) -> web.Response:
    """The OpenAI shape, so that its clients show the sentence."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None
    return web.json_response(
        {"error": {"message": message, "type": kind, "code": kind}}, status=status, headers=headers
    )


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
        return error_response(error.status, "invalid_request_error", message)
    except CallboxError as error:
        status, kind = _STATUS.get(type(error), (500, "error"))
        return error_response(status, kind, str(error))
    except ConnectionError:
        raise  # the client went away; aiohttp knows what to do
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return error_response(500, "internal_error", "this worker failed; its log says more")
