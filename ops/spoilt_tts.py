"""A speech worker of role `tts-lab`: it says what the box's own says, and spoils it on the way.

`python -m ops.spoilt_tts URL FAULT`: URL is the box's own speech worker, which is asked as by a client without a call,
and keeps what it made, unspoilt, under the names that are given; FAULT is one of ops.lab.live. On the real runtime:
an agent gets it as it gets any worker, and knows nothing of it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
from aiohttp import WSMsgType, web

from daemons import wire
from daemons.audio import Samples, to_int16
from daemons.errors import BadRequest, ConfigurationError, Unavailable, in_words
from daemons.runtime import Runtime, main
from daemons.streams import (
    WS_CLOSE_TIMEOUT_S,
    WS_HEARTBEAT_S,
    Outlet,
    serve_socket,
    to_whoever_is_there,
    while_connected,
)
from ops.lab import live
from ops.lab.signals import Signal
from ops.lab.spoil import Spoiler

CONNECT_S = 2.0
MAX_MESSAGE_BYTES = 64 * 1024


class SpoiltTts:
    role = wire.TTS_LAB

    def __init__(self, runtime: Runtime, url: str, fault: str) -> None:
        self.slots = runtime.settings.slots
        self.direct_slots = runtime.settings.direct_slots
        self._runtime = runtime
        self._fault = fault
        self._http = aiohttp.ClientSession(url)

    async def load(self) -> str:
        if self._fault not in live.FAULTS:
            raise ConfigurationError(f"there is no live fault {self._fault!r}; there are {', '.join(live.FAULTS)}")
        async with self._connected():
            return self._fault

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/tts/live", to_whoever_is_there(self._live)),
            web.post("/tts/stream", to_whoever_is_there(self._stream)),
        ]

    async def drain(self) -> None:
        """The lab hangs up before it ends this worker: nobody is waited for."""
        self._runtime.admission.abort_all("this worker is stopping")

    async def close(self) -> None:
        await self._http.close()

    async def _live(self, request: web.Request) -> web.StreamResponse:
        async with self._runtime.admission.admit(request.headers), self._connected() as upstream:
            socket = web.WebSocketResponse(
                timeout=WS_CLOSE_TIMEOUT_S, heartbeat=WS_HEARTBEAT_S, compress=False, max_msg_size=MAX_MESSAGE_BYTES
            )
            await socket.prepare(request)
            outlet = Outlet(request)
            await serve_socket(socket, outlet, _Between(socket, outlet, upstream, self._fault).run())
            return socket

    async def _stream(self, request: web.Request) -> web.Response:
        """As it was made: what an agent has rendered here it keeps for all its calls."""
        async with self._runtime.admission.admit(request.headers), while_connected(request):
            body, kind = await request.read(), {"Content-Type": request.content_type}
            try:
                async with self._http.post("/tts/stream", data=body, headers=kind) as said:
                    return web.Response(body=await said.read(), status=said.status, content_type=said.content_type)
            except aiohttp.ClientError as error:
                raise Unavailable(f"the speech worker behind this one: {in_words(error)}") from error

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        try:
            async with asyncio.timeout(CONNECT_S):
                socket = await self._http.ws_connect("/tts/live")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the speech worker behind this one: {in_words(error)}") from error
        try:
            yield socket
        finally:
            await socket.close()


class _Between:
    """One connection, and the one behind it: what is asked goes on as it is, what is answered is spoilt."""

    def __init__(
        self, socket: web.WebSocketResponse, outlet: Outlet, upstream: aiohttp.ClientWebSocketResponse, fault: str
    ) -> None:
        self._socket = socket
        self._outlet = outlet
        self._upstream = upstream
        self._fault = fault
        self._answers: dict[int, _Answer] = {}

    async def run(self) -> None:
        """Until either side closes. Raises BadRequest or SlowReader when the stream must end."""
        ways = [asyncio.create_task(self._ask()), asyncio.create_task(self._tell())]
        try:
            ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            await ended.pop()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _ask(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                raise BadRequest("only JSON text is understood here")
            await self._upstream.send_str(message.data)

    async def _tell(self) -> None:
        async for message in self._upstream:
            if message.type is WSMsgType.BINARY:
                header, pcm = wire.AudioHeader.split(message.data)
                await self._send(self._answer(header.id).spoilt(np.frombuffer(pcm, "<i2")))
                continue
            reply = wire.tts_reply.validate_json(message.data)
            if isinstance(reply, wire.TtsSegment):
                reply = self._answer(reply.id).placed(reply)
            elif reply.id is not None and (answer := self._answers.pop(reply.id, None)) is not None:
                reply = await self._ended(answer, reply)
            await self._socket.send_str(reply.model_dump_json())

    async def _ended(self, answer: "_Answer", reply: wire.TtsDone | wire.StreamError) -> wire.TtsReply:
        if isinstance(reply, wire.StreamError):
            return reply
        if reply.reason != "cancelled":
            await self._send(answer.end())
        return reply.model_copy(update={"samples": answer.sent})

    def _answer(self, request: int) -> "_Answer":
        if request not in self._answers:
            self._answers[request] = _Answer(request, live.spoiler(self._fault))
        return self._answers[request]

    async def _send(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            await self._outlet.room()
            await self._socket.send_bytes(frame)


class _Answer:
    """What is said to one request, cut anew into frames as /tts/live has them."""

    def __init__(self, request: int, spoiler: Spoiler) -> None:
        self.sent = 0
        self._request = request
        self._spoiler = spoiler
        self._rest: Samples = np.zeros(0, np.int16)

    def placed(self, segment: wire.TtsSegment) -> wire.TtsSegment:
        """The same words, where they lie in what is sent."""
        first, last = (self._spoiler.length(at) for at in (segment.from_sample, segment.from_sample + segment.samples))
        return segment.model_copy(update={"from_sample": first, "samples": last - first})

    def spoilt(self, samples: Samples) -> Iterator[bytes]:
        """The frames that are full now; `samples` are int16 [n] at 24 kHz."""
        return self._frames(self._spoiler(samples / 32768), wire.TTS_FRAME_SAMPLES)

    def end(self) -> Iterator[bytes]:
        """What is left."""
        return self._frames(self._spoiler.end(), 1)

    def _frames(self, signal: Signal, least: int) -> Iterator[bytes]:
        waiting = np.concatenate([self._rest, to_int16(signal.astype(np.float32))])
        while len(waiting) >= least:
            frame, waiting = np.split(waiting, [wire.TTS_FRAME_SAMPLES])
            header = wire.AudioHeader(self._request, self.sent)
            self.sent += len(frame)
            yield header.pack() + frame.tobytes()
        self._rest = waiting


if __name__ == "__main__":
    _url, _fault = sys.argv[1:]
    main(lambda runtime: SpoiltTts(runtime, _url, _fault))
