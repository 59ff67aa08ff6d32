"""The token server: admission before a room exists, the queue, tokens to join."""

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web
from prometheus_client import Counter
from pydantic import SecretStr

from daemons import wire
from daemons.errors import BadRequest, ConfigurationError, Unavailable
from daemons.media import TOKEN_TTL_S, Rooms, join_token
from daemons.registry import LEASE_TTL_MS, AcquireStatus, CallState
from daemons.runtime import Runtime, until_idle
from daemons.settings import PREFIX
from daemons.streams import ClientGone, to_whoever_is_there, while_connected
from daemons.token.waiting import CallLengths

log = logging.getLogger(__name__)

ROOM_READY_S = 8.0
ROOM_POLL_S = 0.05
QUEUE_POLL_S = 1.0  # keeps the ticket alive, which dies 6 s after the last poll
KEEP_ALIVE_S = 15.0
FOLLOW_S = 5.0
RETRY_AFTER_S = 5.0
OUTAGE_S = 10.0  # of the registry, before a page that waits is told

Reply = wire.CallGranted | wire.CallQueued | wire.CallRefused


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
        self._answers = Counter(
            "callbox_admissions_total", "Answers to who asks for a call", ["answer"], registry=runtime.metrics
        )
        for answer in _STATUS:
            self._answers.labels(answer)

    async def load(self) -> str:
        for name in ("token_secret", "livekit_api_secret"):
            if not getattr(self._settings, name).get_secret_value():
                raise ConfigurationError(f"{PREFIX}{name.upper()} is empty; `callbox up` makes one")
        self._following = asyncio.create_task(self._follow_call_lengths())
        return ""

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return (
            web.post("/api/calls", self._in_words(self._start)),
            web.get("/api/calls/{call}", self._in_words(self._show)),
            web.get("/api/calls/{call}/events", self._in_words(self._listen)),
            web.delete("/api/calls/{call}", self._in_words(self._end)),
        )

    async def drain(self) -> None:
        """Calls that are being granted are; a page that waits asks again of the next process."""
        await until_idle(self._runtime.health)

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
        await self._rooms.close()

    # Doors

    async def _start(self, request: web.Request) -> web.Response:
        if refused := self._key_refused(request) or self._role_refused(request):
            return refused
        if self._runtime.draining.is_set():
            raise Unavailable("it is starting anew")
        call = f"call-{secrets.token_hex(8)}"
        try:
            async with while_connected(request):
                with self._runtime.health.working():
                    return self._respond(request, await self._admit(call, request))
        except ClientGone:  # nobody has learned of this call
            await self._give_up(call)
            raise

    async def _show(self, request: web.Request) -> web.Response:
        """A place in the queue, kept by asking; for a call that goes on, a fresh token."""
        if refused := self._secret_refused(request) or self._role_refused(request):
            return refused
        return self._respond(request, await self._standing(request.match_info["call"], request))

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        """The same as `_show`, told by server-sent events until the call is granted or refused."""
        if refused := self._secret_refused(request) or self._role_refused(request):
            return refused
        if self._listeners >= self._settings.queue_max + self._settings.slots:
            return self._respond(request, _refused("full", "too many pages are waiting already", RETRY_AFTER_S))
        stream = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        self._listeners += 1
        try:
            async with while_connected(request):
                await stream.prepare(request)
                await self._tell(stream, request)
        finally:
            self._listeners -= 1
        return stream

    async def _tell(self, stream: web.StreamResponse, request: web.Request) -> None:
        told, told_at, asked_at = "", 0.0, time.monotonic()
        while not self._runtime.draining.is_set():
            try:
                answer = await self._standing(request.match_info["call"], request)
                asked_at = time.monotonic()
            except Unavailable as error:
                if time.monotonic() - asked_at < OUTAGE_S:
                    await asyncio.sleep(QUEUE_POLL_S)
                    continue
                answer = _unavailable(error)
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
        await self._give_up(request.match_info["call"])
        return web.Response(status=204)

    # Admission

    async def _standing(self, call: str, request: web.Request) -> Reply:
        """Raises Unavailable, as `_admit` does."""
        standing = await self._registry.lookup(call)
        if standing.state is CallState.NONE:
            return _refused("not_found", "This call is over. Press Call to start another.")
        return await self._admit(call, request, is_held=standing.state is CallState.HELD)

    async def _admit(self, call: str, request: web.Request, *, is_held: bool = False) -> Reply:
        """Ask for a place; asked again for the same call, the registry gives the same answer.

        Raises Unavailable when the registry is away, or when a role has no worker: a call that waits keeps its place
        for as long as it asks.
        """
        roles = [_speaker(request) if role == "tts" else role for role in self._settings.call_roles]
        deadline = time.monotonic() + ROOM_READY_S
        while True:
            answer = await self._registry.acquire(call, roles, LEASE_TTL_MS, self._settings.queue_max)
            if answer.status is not AcquireStatus.GRANTED:
                break
            try:
                if await self._agent_came(call, answer.fence, deadline):
                    return self._granted(call, request)
                is_held = False
            except Unavailable as error:
                if not is_held:  # by a caller who was in its room, and whose media may come back
                    await self._give_up(call)
                return _unavailable(error)
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
        raise Unavailable(f"no {answer.role} worker is running, as `callbox status` shows")

    async def _agent_came(self, call: str, fence: int | None, deadline: float) -> bool:
        """Wait until the agent is in the room: nobody ever sits in an empty one.

        False when the lease is gone meanwhile, because its agent died and is back: ask for another. Raises
        Unavailable when no agent comes.
        """
        while not await self._rooms.has(call, wire.AGENT_IDENTITY):
            if (await self._registry.lookup(call)).fence != fence:
                return False
            if time.monotonic() > deadline:
                raise Unavailable("the agent did not come to the room in time")
            await asyncio.sleep(ROOM_POLL_S)
        return True

    async def _give_up(self, call: str) -> None:
        """Its ticket, its reservation or its slots."""
        await self._registry.cancel(call)
        standing = await self._registry.lookup(call)
        if standing.fence is not None:
            await self._registry.release(call, standing.fence)

    def _granted(self, call: str, request: web.Request) -> wire.CallGranted:
        camera = request.query.get("camera") == "true" and self._settings.llm_sees
        recorded = request.query.get("record") == "true"
        return wire.CallGranted(
            call_id=call,
            secret=self._secret(call),
            room=call,
            url=self._signal_url(request),
            token=join_token(self._settings, call, wire.CALLER_IDENTITY, camera=camera, recorded=recorded),
            expires_at=time.time() + TOKEN_TTL_S,
            camera=camera,
            recorded=recorded,
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

    def _in_words(
        self, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Every refusal is a CallRefused."""

        @to_whoever_is_there
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except BadRequest as error:
                return self._respond(request, _refused("bad_request", str(error)))
            except Unavailable as error:
                log.warning("%s %s: %s", request.method, request.path, error)
                return self._respond(request, _unavailable(error))

        return answer

    def _key_refused(self, request: web.Request) -> web.Response | None:
        keys = (self._settings.access_key, self._settings.operator_key)
        if not self._settings.access_key or any(self._has(request, key) for key in keys):
            return None
        return self._respond(request, _refused("forbidden", "This service asks for an access key."))

    def _role_refused(self, request: web.Request) -> web.Response | None:
        """Of who asks for another speech worker than every caller gets, without the operator's key."""
        role = _speaker(request)
        if role not in wire.TTS_ROLES:
            raise BadRequest(f"no worker speaks as {role}; there are {', '.join(wire.TTS_ROLES)}")
        if role == "tts" or self._has(request, self._settings.operator_key):
            return None
        message = f"Calls with {role} are the operator's: send Authorization: Bearer KEY, with {PREFIX}OPERATOR_KEY."
        return self._respond(request, _refused("forbidden", message))

    def _has(self, request: web.Request, key: SecretStr) -> bool:
        """Whether the request brings this key; one that is empty nobody has."""
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        return bool(key) and _same(given, key.get_secret_value())

    def _secret(self, call: str) -> str:
        """Proves who owns the call; needs no memory, so it outlives this process."""
        key = self._settings.token_secret.get_secret_value().encode()
        return hmac.new(key, call.encode(), hashlib.sha256).hexdigest()

    def _secret_refused(self, request: web.Request) -> web.Response | None:
        call = request.match_info["call"]
        given = request.headers.get(wire.CALL_SECRET) or request.query.get("secret", "")
        if not given:
            raise BadRequest(f"say whose call it is: {wire.CALL_SECRET} carries the secret that came with the call")
        if _same(given, self._secret(call)):
            return None
        return self._respond(request, _refused("forbidden", "This secret is not that call's."))

    def _respond(self, request: web.Request, answer: Reply) -> web.Response:
        kind = answer.error if isinstance(answer, wire.CallRefused) else answer.status
        if request.method == "POST":  # the others keep a place by asking again and again
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


def _speaker(request: web.Request) -> str:
    """The role that is asked to speak in the call."""
    return request.query.get("tts", "tts")


def _refused(error: wire.Refusal, message: str, retry_after_s: float | None = None) -> wire.CallRefused:
    return wire.CallRefused(error=error, message=message, retry_after_s=retry_after_s)


def _unavailable(error: Unavailable) -> wire.CallRefused:
    return _refused("unavailable", f"The service cannot take calls now: {error}.", RETRY_AFTER_S)


def _same(given: str, expected: str) -> bool:
    """In constant time; a header may carry any bytes."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), expected.encode())
