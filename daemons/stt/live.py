"""WS /stt/live: audio in while somebody speaks, the words so far whenever the client commits, and partials."""

import asyncio
import logging
import time

import numpy as np
from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import ValidationError

from daemons import wire
from daemons.audio import STT_RATE_HZ, Samples
from daemons.errors import BadRequest, CallboxError
from daemons.streams import CANCELLED, CLIENT_GONE, Endings, Outlet, sentence
from daemons.stt.asked import Asked
from daemons.stt.partials import Partials, Precedence, Transcribe

log = logging.getLogger(__name__)
LONGEST_S = 30
LONGEST_BYTES = LONGEST_S * STT_RATE_HZ * 2
MAX_COMMITS = 4


class LiveStt:
    """One connection: at most one open utterance, and the commits under way."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        outlet: Outlet,
        transcribe: Transcribe,
        precedence: Precedence,
        endings: Endings,
    ) -> None:
        self._socket = socket
        self._outlet = outlet
        self._transcribe = transcribe
        self._endings = endings
        self._utterance: int | None = None
        self._heard = bytearray()
        self._commits: dict[asyncio.Task[None], int] = {}
        self._partials = Partials(transcribe, self._send, precedence)

    async def run(self) -> None:
        """Serve until the client closes. Raises BadRequest or SlowReader when the stream must end."""
        try:
            async for message in self._socket:
                await self._outlet.room()
                if message.type is WSMsgType.BINARY:
                    self._hear(message.data)
                elif message.type is WSMsgType.TEXT:
                    try:
                        request = wire.stt_request.validate_json(message.data)
                    except ValidationError as error:
                        raise BadRequest(sentence(error)) from None
                    await self._take(request)
        finally:
            commits = list(self._commits)
            is_gone = self._socket.close_code == WSCloseCode.ABNORMAL_CLOSURE  # without a closing handshake
            for task in commits:
                task.cancel(CLIENT_GONE if is_gone else CANCELLED)
            await asyncio.gather(*commits, self._partials.close(), return_exceptions=True)

    def _hear(self, pcm: bytes) -> None:
        if self._utterance is None:
            raise BadRequest("audio came before `start` opened an utterance")
        if len(pcm) % 2:
            raise BadRequest("audio is PCM16: an odd number of bytes is not whole samples")
        if len(self._heard) + len(pcm) > LONGEST_BYTES:
            raise BadRequest(f"an utterance holds at most {LONGEST_S} s of audio")
        self._heard += pcm
        self._partials.hear(self._heard)

    async def _take(self, message: wire.SttRequest) -> None:
        if isinstance(message, wire.SttStart):
            self._utterance = message.utterance
            self._heard.clear()
            self._partials.open(message.utterance if message.partials else None)
        elif isinstance(message, wire.SttCommit):
            await self._commit(message)
        else:
            self._utterance = None
            self._heard.clear()
            self._partials.open(None)
            await self._cancel()

    async def _commit(self, message: wire.SttCommit) -> None:
        if self._utterance is None:
            await self._send(wire.StreamError(id=message.id, message="no utterance is open; `start` opens one"))
        elif len(self._commits) >= MAX_COMMITS:
            await self._send(wire.StreamError(id=message.id, message=f"{MAX_COMMITS} commits are under way already"))
        else:
            self._partials.stop()
            samples = np.frombuffer(bytes(self._heard), "<i2")
            task = asyncio.create_task(self._answer(message, self._utterance, samples))
            self._commits[task] = message.id
            task.add_done_callback(self._commits.pop)

    async def _cancel(self) -> None:
        cancelled = dict(self._commits)
        for task, commit in cancelled.items():
            task.cancel(CANCELLED)
            await self._send(wire.StreamError(id=commit, message="cancelled"))

    async def _answer(self, commit: wire.SttCommit, utterance: int, samples: Samples) -> None:
        began_s = time.monotonic()
        try:
            with self._endings.counted():
                text = await self._transcribe(samples, Asked(commit.priority))
                reply: wire.SttFinal | wire.StreamError = wire.SttFinal(
                    utterance=utterance,
                    id=commit.id,
                    text=text,
                    audio_ms=len(samples) * 1000 / STT_RATE_HZ,
                    compute_ms=round((time.monotonic() - began_s) * 1000, 2),
                )
        except CallboxError as error:
            reply = wire.StreamError(id=commit.id, message=str(error))
        except Exception:
            log.exception("commit %d of /stt/live failed", commit.id)
            reply = wire.StreamError(id=commit.id, message="this worker failed; its log says more")
        await self._send(reply)

    async def _send(self, reply: wire.SttReply) -> None:
        try:
            await self._socket.send_str(reply.model_dump_json())
        except ConnectionError:
            log.debug("the client had gone before its answer")
