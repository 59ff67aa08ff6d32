"""The text-to-speech worker: its life and its doors."""

import asyncio
import functools
import secrets
from collections.abc import Iterable

import numpy as np
from aiohttp import web
from prometheus_client import Gauge

from daemons import openapi
from daemons.audio import TTS_RATE_HZ, Samples
from daemons.errors import BadRequest
from daemons.runtime import Runtime
from daemons.streams import (
    WS_CLOSE_TIMEOUT_S,
    WS_HEARTBEAT_S,
    Outlet,
    StreamCut,
    read_json,
    serve_socket,
    to_whoever_is_there,
    while_connected,
)
from daemons.tts.bodies import OPENAI_VOICES, SAMPLE_RATE, STREAM_ID, Config, Figures, SpeechBody, StreamBody
from daemons.tts.encode import CONTENT_TYPES, LENGTH_AHEAD, AudioFormat, Encoder, encoded, stream_encoder
from daemons.tts.kept import Kept
from daemons.tts.live import LiveTts
from daemons.tts.openapi import tts_document
from daemons.tts.resume import RecentStreams
from daemons.tts.speech import Speech, SpeechMetrics
from daemons.tts.traces import Traces
from daemons.tts.vibevoice import REQUEST_LINE_BYTES, VibeVoiceStream
from daemons.tts.voices import voice
from daemons.worker import EngineWorker

CHUNK_SAMPLES = 4096
STATS_KEPT = 256
STATS_KEPT_S = 3600.0
MAX_MESSAGE_BYTES = 64 * 1024


class TtsService(EngineWorker):
    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        super().__init__(runtime, "tts", threads=1)
        runtime.max_request_line_bytes = REQUEST_LINE_BYTES
        self._voice = voice(settings, self.lane, SpeechMetrics(runtime.metrics), runtime.stop)
        self._stats: Kept[Figures] = Kept(count=STATS_KEPT, age_s=STATS_KEPT_S)
        self._traces = Traces()
        self._recent = RecentStreams()
        kept = Gauge("callbox_tts_kept_bytes", "Audio kept for streams that may go on", registry=runtime.metrics)
        kept.set_function(lambda: self._recent.bytes)
        self._name = f"{settings.tts_engine}/{self._voice.name}"

    async def load(self) -> str:
        await self._voice.load()
        self._document = tts_document(self._voice.name)
        return self._name

    async def close(self) -> None:
        await self._voice.close()
        await super().close()

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/tts/live", to_whoever_is_there(self.live)),
            web.post("/tts/stream", to_whoever_is_there(self.stream)),
            web.get("/tts/stats/{id}", self.stats),
            web.get("/tts/traces/{id}.wav", self.trace),
            web.get("/stream", to_whoever_is_there(self.vibevoice)),
            web.get("/config", self.config),
            openapi.route(lambda: self._document),
            web.post("/v1/audio/speech", to_whoever_is_there(self.speech)),
        ]

    async def live(self, request: web.Request) -> web.StreamResponse:
        async with self.admit(request) as work:
            socket = _socket()
            await socket.prepare(request)
            outlet = Outlet(request)

            def make_speech(trace: str | None) -> Speech:
                keep = None if trace is None else functools.partial(self._traces.add, trace)
                return self._voice.speech(work, keep=keep)

            await serve_socket(socket, outlet, LiveTts(socket, outlet, make_speech, self.endings).run())
            return socket

    async def vibevoice(self, request: web.Request) -> web.StreamResponse:
        socket = _socket(autoclose=False)
        await socket.prepare(request)
        stream = VibeVoiceStream(
            socket, Outlet(request), self._voice, self._recent, self.endings, lambda: self.admit(request)
        )
        await stream.run(request.query)
        return socket

    async def config(self, _: web.Request) -> web.Response:
        config: Config = {"voices": [self._voice.name], "default_voice": self._voice.name}
        return web.json_response(config)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request, StreamBody)
        self._check_voice(body.speaker)
        async with self.admit(request) as work:
            speech = self._voice.speech(work, seed=body.seed, speed=body.speed)
            return await self._stream(request, speech, body.text, "pcm")

    async def speech(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request, SpeechBody)
        if body.voice not in OPENAI_VOICES:
            self._check_voice(body.voice)
        async with self.admit(request) as work:
            whole = body.response_format in LENGTH_AHEAD and not body.stream
            speech = self._voice.speech(work, seed=body.seed, speed=body.speed, whole_sentences=whole)
            send = self._whole if whole else self._stream
            return await send(request, speech, body.input, body.response_format)

    async def stats(self, request: web.Request) -> web.Response:
        kept = self._stats.get(request.match_info["id"])
        if kept is None:
            raise web.HTTPNotFound(text="no such stream; the figures of the last few hundred are kept for an hour")
        return web.json_response(kept)

    async def trace(self, request: web.Request) -> web.Response:
        wav = self._traces.wav(request.match_info["id"])
        if wav is None:
            raise web.HTTPNotFound(text="nothing is kept for this trace; audio is kept for some minutes, if asked for")
        return web.Response(body=wav, content_type="audio/wav")

    async def _stream(
        self, request: web.Request, speech: Speech, text: str, audio_format: AudioFormat
    ) -> web.StreamResponse:
        """Audio as it is made. A stream that fails is cut off, so that no client takes a part for the whole."""
        stream_id, headers = _stream_headers()
        response = web.StreamResponse(headers=headers)
        response.content_type = CONTENT_TYPES[audio_format]
        outlet, encoder = Outlet(request), stream_encoder(audio_format)
        speech.write(text)
        speech.end()
        with self.endings.counted():
            try:
                async with while_connected(request):
                    async for spoken in speech:
                        if not response.prepared and len(spoken.samples):
                            await response.prepare(request)
                        await _write(response, outlet, encoder, spoken.samples)
                    if not response.prepared:
                        raise BadRequest("there is nothing to say in this text")
                    await response.write_eof(await encoder.end())
            except (asyncio.CancelledError, Exception) as error:
                if not response.prepared:
                    raise
                outlet.abandon()
                raise StreamCut(response) from error
        self._keep_stats(stream_id, speech)
        return response

    async def _whole(self, request: web.Request, speech: Speech, text: str, audio_format: AudioFormat) -> web.Response:
        stream_id, headers = _stream_headers()
        speech.write(text)
        speech.end()
        with self.endings.counted():
            async with while_connected(request):
                samples = np.concatenate([np.zeros(0, np.int16), *[spoken.samples async for spoken in speech]])
                if not len(samples):
                    raise BadRequest("there is nothing to say in this text")
                file = await encoded(audio_format, samples)
        self._keep_stats(stream_id, speech)
        return web.Response(body=file, content_type=CONTENT_TYPES[audio_format], headers=headers)

    def _keep_stats(self, stream_id: str, speech: Speech) -> None:
        ttfa_s = speech.ttfa_s or 0.0
        figures: Figures = {
            "samples": speech.samples,
            "ttfa_ms": round(ttfa_s * 1000, 2),
            "rtf": round(speech.rtf or 0.0, 4),
            "stages": speech.stages,
        }
        self._stats.keep(stream_id, figures)

    def _check_voice(self, name: str | None) -> None:
        if name not in (None, self._voice.name):
            raise BadRequest(f"there is no voice {name!r} here; the voice is {self._voice.name!r}")


def _socket(*, autoclose: bool = True) -> web.WebSocketResponse:
    return web.WebSocketResponse(
        timeout=WS_CLOSE_TIMEOUT_S,
        heartbeat=WS_HEARTBEAT_S,
        compress=False,
        max_msg_size=MAX_MESSAGE_BYTES,
        autoclose=autoclose,
    )


def _stream_headers() -> tuple[str, dict[str, str]]:
    stream_id = secrets.token_hex(8)
    return stream_id, {STREAM_ID: stream_id, SAMPLE_RATE: str(TTS_RATE_HZ)}


async def _write(response: web.StreamResponse, outlet: Outlet, encoder: Encoder, samples: Samples) -> None:
    for at in range(0, len(samples), CHUNK_SAMPLES):
        if piece := await encoder.write(samples[at : at + CHUNK_SAMPLES]):
            await outlet.room()
            await response.write(piece)
