"""What the speech and chat doors share: bodies read in bounded time, slow readers bounded, vanished clients noticed."""

import asyncio
import contextlib
import functools
import logging
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import TypeVar

from aiohttp import WSCloseCode, web
from aiohttp.typedefs import Handler
from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel, ValidationError

from daemons import wire
from daemons.errors import BadRequest, CallboxError

log = logging.getLogger(__name__)

BODY_TIMEOUT_S = 30.0
# Audio that a slow reader has not taken yet: 0.5 s here and 1.3 s in the kernel (which takes twice what it is told).
UNSENT_BYTES = 24 * 1024
KERNEL_BYTES = 32 * 1024
NO_PROGRESS_S = 10.0
POLL_S = 0.01
GONE_POLL_S = 0.05
WS_CLOSE_TIMEOUT_S = 1.0
WS_HEARTBEAT_S = 20.0
# Reasons to cancel a task with that are no failure of anybody's
CANCELLED, CLIENT_GONE = "cancelled", "client_gone"
ENDINGS = ("finished", CANCELLED, CLIENT_GONE, "aborted", "slow_reader", "refused", "failed")
WS_REASON_BYTES = 120  # of 125 that a control frame holds

Body = TypeVar("Body", bound=BaseModel)


class SlowReader(CallboxError):
    """The client took nothing for NO_PROGRESS_S."""


class ClientGone(ConnectionResetError):
    """The client closed the connection before its answer had ended."""


class StreamCut(Exception):
    """A stream that had begun was ended by the cause of this: there is no status left to send."""

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__()
        self.response = response


def to_whoever_is_there(handler: Handler) -> Handler:
    """For doors whose clients leave when they please: that is no error of the worker's, and no news for its log."""

    @functools.wraps(handler)
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except StreamCut as cut:
            return cut.response
        except ConnectionError:
            return web.Response(status=499, reason="Client Closed Request")

    return answer


async def read_json(request: web.Request, model: type[Body]) -> Body:
    """The request's body. Raises BadRequest with a sentence for anything that is not such a body."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return model.model_validate_json(await request.read(), strict=True)
    except TimeoutError:
        raise BadRequest(f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
    except ValidationError as error:
        raise BadRequest(sentence(error, of="body")) from None


def sentence(error: ValidationError, *, of: str = "message") -> str:
    """What is wrong with which field, first things first."""
    problems = error.errors(include_url=False, include_input=False)
    if problems[0]["type"] == "json_invalid":
        return f"the {of} is not JSON: {problems[0]['ctx']['error']}"
    shown = [f"{'.'.join(map(str, at['loc'])) or of}: {at['msg']}" for at in problems[:3]]
    return "; ".join(shown)


class Outlet:
    """The way to one client, with little room: who wants to send waits here until the client has read."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        if request.transport is not None and (sock := request.transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)

    async def room(self) -> None:
        """Return once at most UNSENT_BYTES wait. Raises SlowReader when nothing is taken, or ClientGone."""
        least, since = self._unsent(), time.monotonic()
        while (unsent := self._unsent()) > UNSENT_BYTES:
            if unsent < least:
                least, since = unsent, time.monotonic()
            elif time.monotonic() - since > NO_PROGRESS_S:
                raise SlowReader(f"closed: nothing was read for {NO_PROGRESS_S:g} s")
            await asyncio.sleep(POLL_S)

    def abandon(self) -> None:
        """Drop the connection with what is unsent: the client sees that the stream did not end well."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def _unsent(self) -> int:
        transport = self._request.transport
        if not isinstance(transport, asyncio.WriteTransport) or transport.is_closing():
            raise ClientGone
        return transport.get_write_buffer_size()


@contextlib.asynccontextmanager
async def while_connected(request: web.Request) -> AsyncIterator[None]:
    """Cancels what stands inside when the client goes away, and raises ClientGone then."""
    task = asyncio.current_task()
    gone = False

    async def watch() -> None:
        nonlocal gone
        # aiohttp tells nobody when a connection closes, unless it may cancel every handler of the daemon
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(GONE_POLL_S)
        gone = True
        if task is not None:
            task.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and task is not None and task.uncancel() == 0:
            raise ClientGone from None
        raise
    except StreamCut as cut:  # by that cancel
        if gone and task is not None and task.uncancel() == 0:
            raise StreamCut(cut.response) from ClientGone()
        raise
    finally:
        watching.cancel()


class Endings:
    """Counts how streams end; every stream ends in one of these ways."""

    def __init__(self, metrics: CollectorRegistry) -> None:
        self._ended = Counter("callbox_streams_ended_total", "Streams by how they ended", ["how"], registry=metrics)
        for how in ENDINGS:  # a series whose first count is 1 has no increase
            self._ended.labels(how)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._ended.labels(_how(error)).inc()
            raise
        self._ended.labels("finished").inc()


def _how(error: BaseException) -> str:
    if isinstance(error, StreamCut) and error.__cause__ is not None:
        return _how(error.__cause__)
    if isinstance(error, asyncio.CancelledError):
        return str(error) if str(error) in (CANCELLED, CLIENT_GONE) else "aborted"
    if isinstance(error, ConnectionError):
        return CLIENT_GONE
    if isinstance(error, SlowReader):
        return "slow_reader"
    return "refused" if isinstance(error, CallboxError) else "failed"


async def serve_socket(socket: web.WebSocketResponse, outlet: Outlet, session: Coroutine[None, None, None]) -> None:
    """Run a session to its end, and whatever ends it, tell the client why before the socket closes."""
    try:
        await session
        return
    except ConnectionError:
        return
    except BadRequest as error:
        code, reason = WSCloseCode.POLICY_VIOLATION, str(error)
    except SlowReader as error:
        code, reason = WSCloseCode.TRY_AGAIN_LATER, str(error)
    except asyncio.CancelledError as error:
        await _end(socket, outlet, WSCloseCode.GOING_AWAY, str(error) or "this worker is stopping")
        task = asyncio.current_task()
        if error.args and task is not None and task.uncancel() == 0:  # `Work.abort` gives a reason: that was it
            return
        raise
    except Exception:
        log.exception("a session on a socket failed")
        code, reason = WSCloseCode.INTERNAL_ERROR, "this worker failed; its log says more"
    await _end(socket, outlet, code, reason)


async def _end(socket: web.WebSocketResponse, outlet: Outlet, code: int, reason: str) -> None:
    """Be gone within two time-outs whether or not the client listens."""
    try:
        async with asyncio.timeout(2 * WS_CLOSE_TIMEOUT_S):
            await socket.send_str(wire.StreamError(message=reason).model_dump_json())
            await socket.close(code=code, message=reason.encode()[:WS_REASON_BYTES])
    except (TimeoutError, ConnectionError):
        outlet.abandon()
