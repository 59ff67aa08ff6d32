"""The token server: admission before a room exists, the queue, tokens to join."""

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Iterable

from aiohttp import web
from prometheus_client import Counter

from daemons import wire
from daemons.errors import BadRequest, Unavailable
from daemons.media import TOKEN_TTL_S, Rooms, join_token
from daemons.registry import LEASE_TTL_MS, Acquired, AcquireStatus, CallState
from daemons.runtime import Runtime
from daemons.token.waiting import CallLengths

log = logging.getLogger(__name__)

SECRET_HEADER = "X-Call-Secret"  # noqa: S105 - a header's name
ROOM_READY_S = 8.0
ROOM_POLL_S = 0.05
QUEUE_POLL_S = 1.0  # keeps the ticket alive, which dies 6 s after the last poll
KEEP_ALIVE_S = 15.0
FOLLOW_S = 5.0
RETRY_AFTER_S = 5.0


class TokenServer:
    role = "token"
    slots = 0
    direct_slots = 0

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._registry = runtime.registry
        self._rooms = Rooms(runtime.settings)
        self._lengths = CallLengths()
        self._listeners = 0
        self._following: asyncio.Task[None] | None = None
        self._answers = Counter("callbox_admissions_total", "Answers to callers", ["answer"], registry=runtime.metrics)

    async def load(self) -> str:
        self._following = asyncio.create_task(self._follow_call_lengths())
        return ""

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return (
            web.post("/api/calls", self._start),
            web.get("/api/calls/{call}", self._show),
            web.get("/api/calls/{call}/events", self._listen),
            web.delete("/api/calls/{call}", self._end),
        )

    async def drain(self) -> None:
        """Nothing to wait for: a queued page asks again of the next process."""

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
        await self._rooms.close()

    # Doors

    async def _start(self, request: web.Request) -> web.Response:
        if refused := self._key_refused(request):
            return refused
        return self._respond(await self._admit(f"call-{secrets.token_hex(8)}", request))

    async def _show(self, request: web.Request) -> web.Response:
        """A place in the queue, kept by asking; for a call that goes on, a fresh token."""
        if refused := self._secret_refused(request):
            return refused
        return self._respond(await self._standing(request.match_info["call"], request))

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        """The same as `_show`, told by server-sent events until the call is granted or refused."""
        if refused := self._secret_refused(request):
            return refused
        if self._listeners >= self._settings.queue_max + self._settings.slots:
            return self._respond(_refused("full", "too many pages are waiting already", RETRY_AFTER_S))
        stream = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        await stream.prepare(request)
        self._listeners += 1
        try:
            await self._tell(stream, request)
        finally:
            self._listeners -= 1
        return stream

    async def _tell(self, stream: web.StreamResponse, request: web.Request) -> None:
        told, told_at = "", 0.0
        while not self._runtime.draining.is_set():
            answer = await self._standing(request.match_info["call"], request)
            now = answer.model_dump_json()
            if now != told:
                await stream.write(f"event: message\ndata: {now}\n\n".encode())
                told, told_at = now, time.monotonic()
            elif time.monotonic() - told_at > KEEP_ALIVE_S:
                await stream.write(b": still here\n\n")
                told_at = time.monotonic()
            if not isinstance(answer, wire.CallQueued):
                return
            await asyncio.sleep(QUEUE_POLL_S)

    async def _end(self, request: web.Request) -> web.Response:
        """Hang up or leave the queue. The agent sees its lease gone and closes the room."""
        if refused := self._secret_refused(request):
            return refused
        call = request.match_info["call"]
        standing = await self._registry.lookup(call)
        if standing.state is CallState.HELD and standing.fence is not None:
            await self._registry.release(call, standing.fence)
        else:
            await self._registry.cancel(call)
        return web.Response(status=204)

    # Admission

    async def _standing(self, call: str, request: web.Request) -> wire.CallGranted | wire.CallQueued | wire.CallRefused:
        standing = await self._registry.lookup(call)
        if standing.state is CallState.NONE:
            return _refused("not_found", "This call is over. Press Call to start another.")
        return await self._admit(call, request)

    async def _admit(self, call: str, request: web.Request) -> wire.CallGranted | wire.CallQueued | wire.CallRefused:
        """Ask for a place; asked again for the same call, the registry gives the same answer."""
        deadline = time.monotonic() + ROOM_READY_S
        try:
            while True:
                answer = await self._registry.acquire(call, wire.CALL_ROLES, LEASE_TTL_MS, self._settings.queue_max)
                if answer.status is not AcquireStatus.GRANTED:
                    break
                if await self._agent_came(call, answer, deadline):
                    return self._granted(call, request)
        except Unavailable as error:
            log.warning("%s: %s", call, error)
            return _refused("unavailable", f"The service cannot take calls now: {error}.", RETRY_AFTER_S)
        if answer.status is AcquireStatus.QUEUED and answer.position is not None:
            return wire.CallQueued(
                call_id=call,
                secret=self._secret(call),
                position=answer.position,
                eta_s=self._lengths.eta_s(answer.position, self._settings.slots),
            )
        if answer.status is AcquireStatus.FULL:
            message = f"All lines are busy and {self._settings.queue_max} callers wait already. Please try again soon."
            return _refused("full", message, RETRY_AFTER_S)
        return _refused(
            "unavailable",
            f"The service is not complete: no {answer.role} worker is running. `callbox status` shows more.",
            RETRY_AFTER_S,
        )

    async def _agent_came(self, call: str, granted: Acquired, deadline: float) -> bool:
        """Wait until the agent is in the room: nobody ever sits in an empty one.

        False when the lease is gone meanwhile, because its agent died and is back: ask for another. Gives the slots
        back and raises Unavailable when no agent comes.
        """
        try:
            while not await self._rooms.has(call, wire.AGENT_IDENTITY):
                if (await self._registry.lookup(call)).fence != granted.fence:
                    return False
                if time.monotonic() > deadline:
                    raise Unavailable("the agent did not come to the room in time")
                await asyncio.sleep(ROOM_POLL_S)
        except Unavailable:
            if granted.fence is not None:
                await self._registry.release(call, granted.fence)
            raise
        return True

    def _granted(self, call: str, request: web.Request) -> wire.CallGranted:
        return wire.CallGranted(
            call_id=call,
            secret=self._secret(call),
            room=call,
            url=self._signal_url(request),
            token=join_token(self._settings, call, wire.CALLER_IDENTITY),
            expires_at=time.time() + TOKEN_TTL_S,
        )

    def _signal_url(self, request: web.Request) -> str:
        """Where the page reached nginx is where it reaches LiveKit; without nginx, LiveKit itself."""
        host = request.headers.get("X-Forwarded-Host")
        if not host:
            return self._settings.livekit_url
        secure = request.headers.get("X-Forwarded-Proto", "http").split(",")[0].strip() == "https"
        return f"{'wss' if secure else 'ws'}://{host}"

    async def _follow_call_lengths(self) -> None:
        since = "0-0"
        while True:
            try:
                while events := await self._registry.events(since):
                    self._lengths.follow(events)
                    since = events[-1].id
            except Unavailable as error:
                log.debug("no call lengths now: %s", error)
            await asyncio.sleep(FOLLOW_S)

    # Who may

    def _key_refused(self, request: web.Request) -> web.Response | None:
        key = self._settings.access_key.get_secret_value()
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not key or hmac.compare_digest(given.encode(), key.encode()):
            return None
        return self._respond(_refused("forbidden", "This service asks for an access key."))

    def _secret(self, call: str) -> str:
        """Proves who owns the call; needs no memory, so it outlives this process."""
        key = self._settings.token_secret.get_secret_value().encode()
        return hmac.new(key, call.encode(), hashlib.sha256).hexdigest()

    def _secret_refused(self, request: web.Request) -> web.Response | None:
        call = request.match_info["call"]
        given = request.headers.get(SECRET_HEADER) or request.query.get("secret", "")
        if not given:
            raise BadRequest(f"say whose call it is: {SECRET_HEADER} carries the secret that came with the call")
        if hmac.compare_digest(given.encode(), self._secret(call).encode()):
            return None
        return self._respond(_refused("forbidden", "This secret is not that call's."))

    def _respond(self, answer: wire.CallGranted | wire.CallQueued | wire.CallRefused) -> web.Response:
        kind = answer.error if isinstance(answer, wire.CallRefused) else answer.status
        self._answers.labels(kind).inc()
        headers = {"Cache-Control": "no-store"}
        if isinstance(answer, wire.CallRefused) and answer.retry_after_s is not None:
            headers["Retry-After"] = f"{answer.retry_after_s:.0f}"
        return web.json_response(text=answer.model_dump_json(), status=_STATUS[kind], headers=headers)


_STATUS = {
    "granted": 201,
    "queued": 202,
    "bad_request": 400,
    "forbidden": 403,
    "not_found": 404,
    "full": 503,
    "unavailable": 503,
}


def _refused(error: wire.Refusal, message: str, retry_after_s: float | None = None) -> wire.CallRefused:
    return wire.CallRefused(error=error, message=message, retry_after_s=retry_after_s)
