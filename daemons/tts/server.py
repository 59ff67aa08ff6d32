"""The text-to-speech worker: its life and its doors."""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from typing import Annotated, Literal

import numpy as np
from aiohttp import web
from prometheus_client import ProcessCollector
from pydantic import BaseModel, ConfigDict, Field

from daemons.audio import TTS_RATE_HZ, Pcm, Samples, wav_bytes
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
from daemons.tts.engine import ENGINES
from daemons.tts.live import LiveTts
from daemons.tts.speech import Speech, SpeechMetrics, Voice
from daemons.worker import EngineWorker

WARM_UP_TEXT = "Hello, this is a test."
CHUNK_SAMPLES = 4096
STATS_KEPT = 256
MAX_MESSAGE_BYTES = 64 * 1024
# Clients of OpenAI's own service name its voices; here they all mean the one that is loaded.
OPENAI_VOICES = frozenset(
    ["alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage", "shimmer", "verse"]
)
UNKNOWN_LENGTH = 0xFFFFFFFF

Speed = Annotated[float, Field(ge=0.5, le=2.0)]


class StreamBody(BaseModel):
    """POST /tts/stream"""

    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(min_length=1, max_length=20_000)]
    speaker: str | None = None
    speed: Speed = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class SpeechBody(BaseModel):
    """POST /v1/audio/speech, as OpenAI's clients send it; what is not named here is ignored."""

    input: Annotated[str, Field(min_length=1, max_length=4096)]
    voice: str | None = None
    response_format: Literal["wav", "pcm"] = "wav"
    speed: Speed = 1.0
    stream: bool = False
    stream_format: Literal["audio"] = "audio"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class TtsService(EngineWorker):
    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        super().__init__(runtime, "tts", threads=1)
        self._voice = Voice(ENGINES[settings.tts_engine](settings), self.lane, SpeechMetrics(runtime.metrics))
        ProcessCollector(registry=runtime.metrics)
        self._stats: OrderedDict[str, dict[str, object]] = OrderedDict()
        self._name = f"{settings.tts_engine}/{settings.tts_voice}"

    async def load(self) -> str:
        engine = self._voice.engine
        await self.lane.run(lambda _: engine.load())
        await self.lane.run(lambda _: list(engine.synthesize(WARM_UP_TEXT, seed=0, speed=1.0)))
        return self._name

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/tts/live", self.live),
            web.post("/tts/stream", to_whoever_is_there(self.stream)),
            web.get("/tts/stats/{id}", self.stats),
            web.post("/v1/audio/speech", to_whoever_is_there(self.speech)),
        ]

    async def live(self, request: web.Request) -> web.StreamResponse:
        async with self.admit(request) as work:
            socket = web.WebSocketResponse(
                timeout=WS_CLOSE_TIMEOUT_S, heartbeat=WS_HEARTBEAT_S, compress=False, max_msg_size=MAX_MESSAGE_BYTES
            )
            await socket.prepare(request)
            outlet = Outlet(request)
            session = LiveTts(socket, outlet, lambda: Speech(self._voice, work), self.endings)
            await serve_socket(socket, outlet, session.run())
            return socket

    async def stream(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request, StreamBody)
        self._check_voice(body.speaker)
        async with self.admit(request) as work:
            speech = Speech(self._voice, work, seed=body.seed, speed=body.speed)
            return await self._stream(request, speech, body.text, wav=False)

    async def speech(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request, SpeechBody)
        if body.voice not in OPENAI_VOICES:
            self._check_voice(body.voice)
        wav = body.response_format == "wav"
        async with self.admit(request) as work:
            speech = Speech(self._voice, work, seed=body.seed, speed=body.speed)
            if wav and not body.stream:
                return await self._whole_wav(request, speech, body.input)
            return await self._stream(request, speech, body.input, wav=wav)

    async def stats(self, request: web.Request) -> web.Response:
        kept = self._stats.get(request.match_info["id"])
        if kept is None:
            raise web.HTTPNotFound(text="no such stream; the figures of the last few hundred are kept")
        return web.json_response(kept)

    async def _stream(self, request: web.Request, speech: Speech, text: str, *, wav: bool) -> web.StreamResponse:
        """Audio as it is made. A stream that fails is cut off, so that no client takes a part for the whole."""
        stream_id = secrets.token_hex(8)
        response = web.StreamResponse(headers={"X-Stream-Id": stream_id, "X-Sample-Rate": str(TTS_RATE_HZ)})
        response.content_type = "audio/wav" if wav else "audio/pcm"
        outlet = Outlet(request)
        speech.write(text)
        speech.end()
        with self.endings.counted():
            try:
                async with while_connected(request):
                    async for spoken in speech:
                        if not response.prepared and len(spoken.samples):
                            await response.prepare(request)
                            if wav:
                                await response.write(endless_wav_header())
                        await _write(response, outlet, spoken.samples)
                    if not response.prepared:
                        raise BadRequest("there is nothing to say in this text")
                    await response.write_eof()
            except (asyncio.CancelledError, Exception) as error:
                if not response.prepared:
                    raise
                outlet.abandon()
                raise StreamCut(response) from error
        self._keep_stats(stream_id, speech)
        return response

    async def _whole_wav(self, request: web.Request, speech: Speech, text: str) -> web.Response:
        speech.write(text)
        speech.end()
        with self.endings.counted():
            async with while_connected(request):
                samples = np.concatenate([np.zeros(0, np.int16), *[spoken.samples async for spoken in speech]])
            if not len(samples):
                raise BadRequest("there is nothing to say in this text")
        return web.Response(body=wav_bytes(Pcm(samples, TTS_RATE_HZ)), content_type="audio/wav")

    def _keep_stats(self, stream_id: str, speech: Speech) -> None:
        ttfa_s = speech.ttfa_s or 0.0
        self._stats[stream_id] = {
            "samples": speech.samples,
            "ttfa_ms": round(ttfa_s * 1000, 2),
            "rtf": round(speech.rtf or 0.0, 4),
            "stages": speech.stages,
        }
        while len(self._stats) > STATS_KEPT:
            self._stats.popitem(last=False)

    def _check_voice(self, name: str | None) -> None:
        if name not in (None, self._voice.engine.voice):
            raise BadRequest(f"there is no voice {name!r} here; the voice is {self._voice.engine.voice!r}")


async def _write(response: web.StreamResponse, outlet: Outlet, samples: Samples) -> None:
    for at in range(0, len(samples), CHUNK_SAMPLES):
        await outlet.room()
        await response.write(samples[at : at + CHUNK_SAMPLES].tobytes())


def endless_wav_header() -> bytes:
    """Of a WAV whose length is not known yet; players then read to the end of the stream."""
    header = bytearray(wav_bytes(Pcm(np.zeros(0, np.int16), TTS_RATE_HZ)))
    header[4:8] = header[40:44] = UNKNOWN_LENGTH.to_bytes(4, "little")
    return bytes(header)
