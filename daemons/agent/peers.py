"""The speech and chat workers that a call holds: one request at a time to each, every wait bounded.

A worker that dies, hangs or drains is replaced alone, by `swap`; a request is self-contained, so it is asked again of
the new one.
"""

import asyncio
import contextlib
import json
import logging
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import numpy as np

from daemons import wire
from daemons.admission import Claim
from daemons.audio import Samples
from daemons.errors import BadRequest, Unavailable, in_words
from daemons.registry import Holder, Member

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2.0
SEND_TIMEOUT_S = 2.0
ANSWER_TIMEOUT_S = 8.0
SPEECH_TIMEOUT_S = 2 * ANSWER_TIMEOUT_S  # the text may take ANSWER_TIMEOUT_S itself
SWAP_EVERY_S = 0.5
MAX_MESSAGE_BYTES = 4 * 2**20

Answer = TypeVar("Answer")

# What a broken peer looks like from here; the next step for all of them is another worker.
_BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError, struct.error, ValueError)


# What any worker would answer to this request
_NOT_BETTER_ELSEWHERE = frozenset({400, 401, 403, 404, 413, 422})


class NobodyServes(Unavailable):
    """No worker could be had for a role, for as long as a call waits for one."""


class Peers:
    """The members of one call's bundle, and the way to replace one."""

    def __init__(self, session: aiohttp.ClientSession, holder: Holder, replace_s: float) -> None:
        self._session = session
        self._holder = holder
        self._replace_s = replace_s
        self._call = holder.call
        self._roles = {wire.work_of(role): role for role in holder.bundle}  # by work; of each there is one
        self._sockets: dict[str, aiohttp.ClientWebSocketResponse] = {}
        self._request_id = 0

    async def transcribe(self, samples: Samples, priority: wire.Priority = "committed") -> wire.SttFinal:
        """The text of one utterance, int16 [n] at 16 kHz. Who is cancelled here stops the worker's work on it.

        Speculative work is asked for once, of the worker that is there.
        """

        async def ask() -> wire.SttFinal:
            socket = await self._socket("stt", "/stt/live")
            request = self._next_id()
            await socket.send_str(wire.SttStart(utterance=request).model_dump_json())
            await socket.send_bytes(samples.tobytes())
            await socket.send_str(wire.SttCommit(id=request, priority=priority).model_dump_json())
            try:
                return await self._final(socket, request)
            except asyncio.CancelledError:
                with contextlib.suppress(*_BROKEN):
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        await socket.send_str(wire.SttCancel().model_dump_json())
                raise

        return await self._ask("stt", ask, priority)

    async def _final(self, socket: aiohttp.ClientWebSocketResponse, request: int) -> wire.SttFinal:
        while True:
            reply = wire.stt_reply.validate_json(await _receive(socket, ANSWER_TIMEOUT_S))
            if isinstance(reply, wire.StreamError) and reply.id in (request, None):
                raise Unavailable(f"stt: {reply.message}")
            if isinstance(reply, wire.SttFinal) and reply.id == request:
                return reply

    async def chat(self, body: dict[str, Any], priority: wire.Priority) -> AsyncGenerator[str, None]:
        """The reply's text, piece by piece. Asked again of another worker only while nothing was written.

        Speculative work is asked for once, of the worker that is there.
        """
        response = await self._ask("llm", lambda: self._open_chat(body, priority), priority)
        try:
            async for line in response.content:
                if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    raise Unavailable(f"llm: {chunk['error'].get('message', chunk['error'])}")
                if chunk["choices"] and (text := chunk["choices"][0]["delta"].get("content")):
                    yield text
        except _BROKEN as error:
            raise Unavailable(f"llm: {in_words(error)}") from error
        finally:
            response.close()

    async def read_ahead(self, body: dict[str, Any]) -> None:
        """Let the model read what the next answer begins with. A hint: when it fails, nobody is replaced for it."""

        async def ask() -> None:
            async with await self._open_chat({**body, "max_tokens": 0}, "speculative") as response:
                await response.read()

        try:
            await self._once("llm", ask)
        except (Unavailable, BadRequest) as error:
            log.info("%s: nothing was read ahead: %s", self._call, error)

    async def keep_answer(self) -> None:
        """What the model is writing is heard by now, and must not be dropped for other calls. A hint, too."""

        async def ask() -> None:
            member = self._member("llm")
            async with self._session.post(f"{member.addr}/llm/keep", headers=self._headers(member)) as response:
                if response.status != 204:
                    raise Unavailable(f"llm answered {response.status}: {(await response.text())[:300]}")

        try:
            await self._once("llm", ask)
        except Unavailable as error:
            log.info("%s: the answer may be dropped for others': %s", self._call, error)

    async def speech(self, priority: wire.Priority, kept_as: str | None = None) -> "Speech":
        """A new request to the speaking worker, which keeps its audio for a while under the name that is given."""
        socket = await self._ask("tts", lambda: self._socket("tts", "/tts/live"), priority)
        return Speech(socket, self._next_id(), priority, kept_as)

    async def render(self, text: str) -> Samples:
        """`text` spoken, int16 [n] at 24 kHz, when nobody else wants the worker. Raises Unavailable."""

        async def ask() -> Samples:
            member = self._member("tts")
            headers = {**self._headers(member), wire.PRIORITY: "speculative"}
            async with self._session.post(
                f"{member.addr}/tts/stream", json={"text": text}, headers=headers
            ) as response:
                pcm = await response.read()
                if response.status != 200:
                    raise Unavailable(f"tts answered {response.status}: {pcm[:200].decode(errors='replace')}")
                return np.frombuffer(pcm, np.int16)

        return await self._once("tts", ask)

    async def close(self) -> None:
        for role in list(self._sockets):
            await self._drop_socket(role)

    async def _ask(self, role: str, ask: Callable[[], Awaitable[Answer]], priority: wire.Priority) -> Answer:
        return await (self._once if priority == "speculative" else self._with_replacement)(role, ask)

    async def _once(self, role: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return await ask()
        except _BROKEN as error:
            await self._drop_socket(role)
            raise Unavailable(f"{role}: {in_words(error)}") from error

    async def _with_replacement(self, role: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask; once more over a new connection, since the old one may just have been cut; then of another worker."""
        if self._roles[role] in self._holder.moving:
            with contextlib.suppress(Unavailable):
                await self._swap(role)
        for _ in range(2):
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    return await ask()
            except (*_BROKEN, Unavailable) as error:
                log.warning("%s: %s failed: %s", self._call, role, in_words(error))
                await self._drop_socket(role)
                if isinstance(error, TimeoutError):
                    break
        return await self._ask_another(role, ask)

    async def _ask_another(self, role: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask another worker as soon as there is one; till then this one, which may come back.

        Raises NobodyServes after `replace_s` in which the registry answered: without it nobody can say who is there,
        and how long a call may go on without it is the holder's to know.
        """
        deadline = time.monotonic() + self._replace_s
        while True:
            patience_s = max(SWAP_EVERY_S, deadline - time.monotonic())
            try:
                if await self._swap(role):
                    patience_s = ANSWER_TIMEOUT_S
            except Unavailable as error:
                log.warning("%s: %s cannot be replaced yet: %s", self._call, role, error)
                deadline = time.monotonic() + self._replace_s
            try:
                async with asyncio.timeout(patience_s):
                    return await ask()
            except (*_BROKEN, Unavailable) as error:
                await self._drop_socket(role)
                if time.monotonic() > deadline:
                    raise NobodyServes(
                        f"no {role} worker could be had for {self._replace_s:g} s: {in_words(error)}"
                    ) from error
            await asyncio.sleep(SWAP_EVERY_S)

    async def _swap(self, role: str) -> bool:
        """Whether another worker serves the role from now on. Raises Unavailable when the registry does not answer."""
        if await self._holder.swap(self._roles[role]) is None:
            return False
        await self._drop_socket(role)
        return True

    async def _open_chat(self, body: dict[str, Any], priority: wire.Priority) -> aiohttp.ClientResponse:
        member = self._member("llm")
        response = await self._session.post(
            f"{member.addr}/v1/chat/completions",
            json={**body, "stream": True},
            headers={**self._headers(member), wire.PRIORITY: priority},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=ANSWER_TIMEOUT_S),
        )
        if response.status != 200:
            said = f"llm answered {response.status}: {(await response.text())[:300]}"
            response.close()
            raise BadRequest(said) if response.status in _NOT_BETTER_ELSEWHERE else Unavailable(said)
        return response

    async def _socket(self, role: str, path: str) -> aiohttp.ClientWebSocketResponse:
        socket = self._sockets.get(role)
        if socket is None or socket.closed:
            member = self._member(role)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                socket = await self._session.ws_connect(
                    f"{member.addr}{path}", headers=self._headers(member), max_msg_size=MAX_MESSAGE_BYTES, heartbeat=10
                )
            self._sockets[role] = socket
        return socket

    async def _drop_socket(self, role: str) -> None:
        socket = self._sockets.pop(role, None)
        if socket is not None:
            with contextlib.suppress(*_BROKEN):
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await socket.close()

    def _member(self, role: str) -> Member:
        return self._holder.bundle[self._roles[role]]

    def _headers(self, member: Member) -> dict[str, str]:
        return Claim(self._call, member.slot, member.fence, member.boot).headers()

    def _next_id(self) -> int:
        self._request_id += 1
        return self._request_id


class Speech:
    """One request on /tts/live: text goes in as it is written, segments and their audio come out."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, request: int, priority: wire.Priority, kept_as: str | None
    ) -> None:
        self._socket = socket
        self._id = request
        self._priority = priority
        self._kept_as = kept_as
        self._begun = False
        self._done = False

    async def write(self, text: str) -> None:
        self._begun = True
        await self._send(wire.TtsText(id=self._id, text=text, priority=self._priority, trace=self._kept_as))

    async def commit(self) -> None:
        """Somebody listens from now on."""
        self._priority = "committed"
        if self._begun:
            await self.write("")

    async def end(self) -> None:
        """No more text follows."""
        await self._send(wire.TtsEnd(id=self._id))

    async def cancel(self) -> None:
        """Stop the worker's work on this request, if there is any left."""
        if not self._done and not self._socket.closed:
            self._done = True
            with contextlib.suppress(Unavailable):
                await self._send(wire.TtsCancel(id=self._id))

    async def __aiter__(self) -> AsyncIterator[wire.TtsSegment | Samples]:
        """Segments, each before its audio (int16 [n] at 24 kHz). Raises Unavailable when the worker fails."""
        try:
            while not self._done:
                message = await _receive(self._socket, SPEECH_TIMEOUT_S)
                if isinstance(message, bytes):
                    header, pcm = wire.AudioHeader.split(message)
                    if header.id == self._id:
                        yield np.frombuffer(pcm, np.int16)
                    continue
                reply = wire.tts_reply.validate_json(message)
                if reply.id not in (self._id, None):
                    continue  # the tail of a request that was cancelled
                if isinstance(reply, wire.TtsSegment):
                    yield reply
                    continue
                self._done = True
                if isinstance(reply, wire.StreamError):
                    raise Unavailable(f"tts: {reply.message}")
        except _BROKEN as error:
            self._done = True
            raise Unavailable(f"tts: {in_words(error)}") from error

    async def _send(self, message: wire.Message) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._socket.send_str(message.model_dump_json())
        except _BROKEN as error:
            raise Unavailable(f"tts: {in_words(error)}") from error


async def _receive(socket: aiohttp.ClientWebSocketResponse, timeout_s: float) -> str | bytes:
    """The next text or binary message. Raises ConnectionError when the stream ends instead."""
    message = await socket.receive(timeout=timeout_s)
    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
        raise ConnectionError(f"the stream closed ({socket.close_code})")
    data: str | bytes = message.data
    return data
