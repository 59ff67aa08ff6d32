"""The speech-to-text worker: its life and its doors."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import numpy as np
from aiohttp import web
from prometheus_client import Counter, Histogram

from daemons import openapi
from daemons.admission import Work
from daemons.audio import STT_RATE_HZ, FloatSamples, Samples, to_float
from daemons.doors import model_list
from daemons.errors import BadRequest, CallboxError
from daemons.models import model_dir
from daemons.runtime import Runtime
from daemons.streams import (
    WS_CLOSE_TIMEOUT_S,
    WS_HEARTBEAT_S,
    Outlet,
    StreamCut,
    serve_socket,
    to_whoever_is_there,
    while_connected,
)
from daemons.stt import answers
from daemons.stt.asked import Asked
from daemons.stt.engine import ENGINES
from daemons.stt.files import decoded
from daemons.stt.form import Upload, read_upload
from daemons.stt.live import LONGEST_BYTES, LiveStt
from daemons.stt.openapi import stt_document
from daemons.stt.partials import Precedence
from daemons.stt.speech import Piece, Transcriber
from daemons.vad import SileroVad
from daemons.worker import EngineWorker

LATENCY_BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
LAST_WORD_TIMEOUT_S = 1.0


class SttService(EngineWorker):
    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        super().__init__(runtime, "stt", threads=1)
        self._engine = ENGINES[settings.stt_engine](settings, self.lane, runtime.metrics)
        self._vad_model = model_dir(settings, settings.vad_model) / "silero_vad.onnx"
        self._loaded_at = int(time.time())
        self._precedence = Precedence(runtime.metrics)
        self._took_s = Histogram(
            "callbox_stt_transcription_seconds",
            "From the commit to the text",
            buckets=LATENCY_BUCKETS_S,
            registry=runtime.metrics,
        )
        self._audio_s = Counter("callbox_audio_seconds_total", "Audio transcribed", registry=runtime.metrics)

    async def load(self) -> str:
        vad = await self.lane.run(lambda _: SileroVad(self._vad_model))
        self._transcriber = Transcriber(self._engine, vad, self.lane)
        await self._engine.load()
        self._document = stt_document(self._engine.languages)
        self.keep_checking(self._engine.check)
        return self._engine.model

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/stt/live", to_whoever_is_there(self.live)),
            web.post("/v1/audio/transcriptions", to_whoever_is_there(self.transcriptions)),
            web.get("/v1/models", self.models),
            openapi.route(lambda: self._document),
        ]

    async def close(self) -> None:
        await super().close()
        await self._engine.close()

    async def live(self, request: web.Request) -> web.StreamResponse:
        async with self.admit(request) as work:
            socket = web.WebSocketResponse(
                timeout=WS_CLOSE_TIMEOUT_S, heartbeat=WS_HEARTBEAT_S, compress=False, max_msg_size=2 * LONGEST_BYTES
            )
            await socket.prepare(request)
            outlet = Outlet(request)

            async def transcribe(samples: Samples, asked: Asked) -> str:
                async with aclosing(self._pieces(to_float(samples), work, asked)) as pieces:
                    return answers.in_words([piece async for piece in pieces])

            session = LiveStt(socket, outlet, transcribe, self._precedence, self.endings)
            await serve_socket(socket, outlet, session.run())
            return socket

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response(model_list(self._engine.model, self._loaded_at))

    async def transcriptions(self, request: web.Request) -> web.StreamResponse:
        async with self.admit(request) as work:
            upload = await read_upload(request)
            known = self._engine.languages
            if upload.language is not None and known and upload.language not in known:
                raise BadRequest(
                    f"this engine does not understand the language {upload.language!r}; it knows {', '.join(known)}"
                )
            with self.endings.counted():
                async with while_connected(request):
                    return await self._answer(request, upload, work)

    async def _answer(self, request: web.Request, upload: Upload, work: Work) -> web.StreamResponse:
        samples = await self._decoded(upload.file, work)
        asked = Asked(language=upload.language, prompt=upload.prompt)
        async with aclosing(self._pieces(samples, work, asked)) as pieces:
            if upload.streams:
                return await self._stream(request, pieces)
            said = [piece async for piece in pieces]
        language = upload.language or next(iter(self._engine.languages), "unknown")
        return answers.whole(upload.format, language, len(samples) / STT_RATE_HZ, said)

    async def _decoded(self, file: bytes, work: Work) -> FloatSamples:
        """float32 [n] at 16 kHz. Raises BadRequest."""
        blocks = [np.zeros(0, np.float32)]
        with work.active(), self._precedence.others():
            async with aclosing(self.lane.steps(lambda _: decoded(file))) as steps:
                async for block in steps:
                    work.progress()
                    blocks.append(block)
        return np.concatenate(blocks)

    async def _stream(self, request: web.Request, pieces: AsyncGenerator[Piece, None]) -> web.StreamResponse:
        """Server-sent events, one for each piece. The first is awaited before the status, so a refusal can be one."""
        outlet = Outlet(request)
        response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        said: list[Piece] = []
        try:
            async for piece in pieces:
                if not response.prepared:
                    await response.prepare(request)
                await outlet.room()
                await response.write(answers.delta(piece, is_first=not said))
                said.append(piece)
        except (asyncio.CancelledError, CallboxError) as error:
            if not response.prepared:
                raise
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(LAST_WORD_TIMEOUT_S):
                    await response.write(answers.failed(str(error) or "this worker is stopping"))
                    await response.write_eof()
            raise StreamCut(response) from error
        if not response.prepared:
            await response.prepare(request)
        await response.write(answers.done(said))
        await response.write_eof()
        return response

    async def _pieces(self, samples: FloatSamples, work: Work, asked: Asked) -> AsyncGenerator[Piece, None]:
        """What is said in `samples`: float32 [n], 16 kHz."""
        began_s = time.monotonic()
        precedence = contextlib.nullcontext() if asked.purpose == "partial" else self._precedence.others()
        with work.active(), precedence:
            async with aclosing(self._transcriber.pieces(samples, asked)) as pieces:
                async for piece in pieces:
                    work.progress()
                    yield piece
        if asked.purpose != "partial":
            self._took_s.observe(time.monotonic() - began_s)
            self._audio_s.inc(len(samples) / STT_RATE_HZ)
