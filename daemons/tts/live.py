"""WS /tts/live: text in as it is written, audio out, any number of requests after and beside each other."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import ValidationError

from daemons import wire
from daemons.audio import Samples
from daemons.errors import BadRequest, CallboxError
from daemons.streams import CANCELLED, CLIENT_GONE, Endings, Outlet, SlowReader, sentence
from daemons.tts.speech import Speech

log = logging.getLogger(__name__)
MAX_OPEN = 4


@dataclass(slots=True)
class _Request:
    id: int
    speech: Speech
    ended: bool = False
    sent: int = 0
    task: "asyncio.Task[None] | None" = None


class LiveTts:
    """One connection, and the requests that are open on it."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        outlet: Outlet,
        make_speech: Callable[[str | None], Speech],
        endings: Endings,
    ) -> None:
        """`make_speech` is given the name of the trace that keeps the audio, if there is one."""
        self._socket = socket
        self._outlet = outlet
        self._make_speech = make_speech
        self._endings = endings
        self._open: dict[int, _Request] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_id = -1
        self._failed: asyncio.Future[CallboxError] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serve until the client closes. Raises BadRequest or SlowReader when the stream must end."""
        reading = asyncio.create_task(self._read())
        failing = asyncio.create_task(self._fail_when_told())
        try:
            ended, _ = await asyncio.wait([reading, failing], return_when=asyncio.FIRST_COMPLETED)
            await ended.pop()
        finally:
            ending = [reading, failing, *self._tasks]
            is_gone = self._socket.close_code == WSCloseCode.ABNORMAL_CLOSURE  # without a closing handshake
            for task in ending:
                task.cancel(CLIENT_GONE if is_gone else CANCELLED)
            await asyncio.gather(*ending, return_exceptions=True)

    async def _fail_when_told(self) -> None:
        raise await self._failed

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                raise BadRequest("only JSON text is understood here")
            try:
                request = wire.tts_request.validate_json(message.data)
            except ValidationError as error:
                raise BadRequest(sentence(error)) from None
            try:
                await self._take(request)
            except BadRequest as error:
                await self._fail(request.id, str(error))

    async def _take(self, message: wire.TtsRequest) -> None:
        request = self._open.get(message.id)
        if isinstance(message, wire.TtsText):
            if request is None:
                request = self._begin(message.id, message.trace)
            elif request.ended:
                raise BadRequest(f"request {message.id} has been ended; more text needs another id")
            request.speech.priority = message.priority
            request.speech.write(message.text)
        elif request is None:
            if message.id > self._last_id:
                raise BadRequest(f"there is no request {message.id}")
        elif isinstance(message, wire.TtsFlush):
            request.speech.flush()
        elif isinstance(message, wire.TtsEnd):
            if not request.ended:
                request.ended = True
                request.speech.end()
        else:
            self._stop(request)
            await self._send_done(request, "cancelled")

    def _begin(self, request_id: int, trace: str | None) -> _Request:
        if request_id <= self._last_id:
            raise BadRequest(f"request {request_id} is over; ids must grow")
        if len(self._open) >= MAX_OPEN:
            raise BadRequest(f"{MAX_OPEN} requests are open already")
        self._last_id = request_id
        request = self._open[request_id] = _Request(request_id, self._make_speech(trace))
        request.task = task = asyncio.create_task(self._speak(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return request

    def _stop(self, request: _Request) -> None:
        self._open.pop(request.id, None)
        if request.task is not None:
            request.task.cancel(CANCELLED)

    async def _fail(self, request_id: int, message: str) -> None:
        if (request := self._open.get(request_id)) is not None:
            self._stop(request)
        await self._socket.send_str(wire.StreamError(id=request_id, message=message).model_dump_json())

    async def _speak(self, request: _Request) -> None:
        try:
            with self._endings.counted():
                await self._send_audio(request)
                self._open.pop(request.id, None)
                await self._send_done(request, "length" if request.speech.is_cut else "finished")
        except BadRequest as error:
            self._open.pop(request.id, None)
            await self._fail(request.id, str(error))
        except SlowReader as error:
            if not self._failed.done():
                self._failed.set_result(error)
        except ConnectionError:
            pass  # the reader sees it too, and ends
        except Exception:
            log.exception("request %d of /tts/live failed", request.id)
            self._open.pop(request.id, None)
            await self._fail(request.id, "this worker failed; its log says more")

    async def _send_audio(self, request: _Request) -> None:
        """Frames of TTS_FRAME_SAMPLES; what a segment leaves over goes with the next one."""
        rest: Samples = np.zeros(0, np.int16)
        async for spoken in request.speech:
            await self._outlet.room()
            segment = wire.TtsSegment(
                id=request.id,
                text=spoken.text,
                from_sample=request.sent + len(rest),
                samples=len(spoken.samples),
            )
            await self._socket.send_str(segment.model_dump_json())
            samples = np.concatenate([rest, spoken.samples])
            whole = len(samples) - len(samples) % wire.TTS_FRAME_SAMPLES
            for at in range(0, whole, wire.TTS_FRAME_SAMPLES):
                await self._send_frame(request, samples[at : at + wire.TTS_FRAME_SAMPLES])
            rest = samples[whole:]
        if len(rest):
            await self._send_frame(request, rest)

    async def _send_frame(self, request: _Request, samples: Samples) -> None:
        await self._outlet.room()
        header = wire.AudioHeader(request.id, request.sent)
        request.sent += len(samples)
        await self._socket.send_bytes(header.pack() + samples.tobytes())
        await asyncio.sleep(0)  # others come in between: nothing above waits while there is room

    async def _send_done(self, request: _Request, reason: Literal["finished", "length", "cancelled"]) -> None:
        speech = request.speech
        done = wire.TtsDone(
            id=request.id,
            reason=reason,
            samples=request.sent,
            ttfa_ms=None if speech.ttfa_s is None else round(speech.ttfa_s * 1000, 2),
            rtf=None if speech.rtf is None else round(speech.rtf, 4),
            stages=speech.stages,
        )
        await self._socket.send_str(done.model_dump_json())
