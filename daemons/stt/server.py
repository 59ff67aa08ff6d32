"""The speech-to-text worker: its life and its doors."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from aiohttp import BodyPartReader, web
from prometheus_client import Counter, Histogram

from daemons import wire
from daemons.admission import Work
from daemons.audio import STT_RATE_HZ, FloatSamples, Samples, read_wav, to_float
from daemons.errors import BadRequest
from daemons.models import model_dir
from daemons.runtime import Runtime
from daemons.streams import (
    BODY_TIMEOUT_S,
    WS_CLOSE_TIMEOUT_S,
    WS_HEARTBEAT_S,
    Outlet,
    serve_socket,
    to_whoever_is_there,
    while_connected,
)
from daemons.stt.engine import ENGINES
from daemons.stt.live import LONGEST_BYTES, LiveStt
from daemons.stt.speech import Piece, Transcriber
from daemons.vad import SileroVad
from daemons.worker import EngineWorker

WARM_UP_S = 1.0
LONGEST_FILE_BYTES = 25 * 2**20  # as at OpenAI
LONGEST_FILE_S = 900
LONGEST_FIELD_BYTES = 4096
RATES_HZ = (8_000, 192_000)
LATENCY_BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

Format = Literal["json", "text", "verbose_json"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(slots=True)
class Upload:
    """The form of POST /v1/audio/transcriptions; what is not named here is ignored."""

    file: bytes | None = None
    response_format: Format = "json"
    language: str | None = None


class SttService(EngineWorker):
    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        super().__init__(runtime, "stt", threads=1)
        self._engine = ENGINES[settings.stt_engine](settings)
        self._vad_model = model_dir(settings, settings.vad_model) / "silero_vad.onnx"
        self._name = f"{settings.stt_engine}/{settings.stt_model}"
        self._took_s = Histogram(
            "callbox_stt_transcription_seconds",
            "From the commit to the text",
            buckets=LATENCY_BUCKETS_S,
            registry=runtime.metrics,
        )
        self._compute_s = Counter(
            "callbox_compute_seconds_total",
            "Work of the engine; by audio it is the RTF",
            ["stage"],
            registry=runtime.metrics,
        ).labels("transcription")
        self._audio_s = Counter("callbox_audio_seconds_total", "Audio transcribed", registry=runtime.metrics)

    async def load(self) -> str:
        def load(_: threading.Event) -> Transcriber:
            self._engine.load()
            return Transcriber(self._engine, SileroVad(self._vad_model))

        self._transcriber = await self.lane.run(load)
        noise = np.random.default_rng(0).standard_normal(int(WARM_UP_S * STT_RATE_HZ)).astype(np.float32) * 0.1
        await self.lane.run(lambda cancelled: self._engine.transcribe(noise, cancelled))
        return self._name

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/stt/live", self.live),
            web.post("/v1/audio/transcriptions", to_whoever_is_there(self.transcriptions)),
        ]

    async def live(self, request: web.Request) -> web.StreamResponse:
        async with self.admit(request) as work:
            socket = web.WebSocketResponse(
                timeout=WS_CLOSE_TIMEOUT_S, heartbeat=WS_HEARTBEAT_S, compress=False, max_msg_size=2 * LONGEST_BYTES
            )
            await socket.prepare(request)
            outlet = Outlet(request)

            async def transcribe(samples: Samples, priority: wire.Priority) -> str:
                return in_words([piece async for piece in self._pieces(to_float(samples), work, priority)])

            await serve_socket(socket, outlet, LiveStt(socket, outlet, transcribe, self.endings).run())
            return socket

    async def transcriptions(self, request: web.Request) -> web.StreamResponse:
        async with self.admit(request) as work:
            upload = await read_upload(request)
            if upload.language is not None and upload.language.lower() not in self._engine.languages:
                known = ", ".join(self._engine.languages)
                raise BadRequest(f"this engine does not understand the language {upload.language!r}; it knows {known}")
            if upload.file is None:
                raise BadRequest("the form has no `file`")
            file = upload.file
            with self.endings.counted():
                async with while_connected(request):
                    samples = await self.lane.run(lambda _: decoded(file))
                    pieces = [piece async for piece in self._pieces(samples, work, "committed")]
        return answer(upload.response_format, self._engine.languages[0], len(samples) / STT_RATE_HZ, pieces)

    async def _pieces(self, samples: FloatSamples, work: Work, priority: wire.Priority) -> AsyncIterator[Piece]:
        """What is said in `samples`: float32 [n], 16 kHz. Others' committed work comes in between two pieces."""
        began_s, worked_s = time.monotonic(), 0.0

        def timed(cancelled: threading.Event) -> Iterator[Piece]:
            nonlocal worked_s
            pieces = self._transcriber.pieces(samples, cancelled)
            while True:
                step_began_s = time.monotonic()
                piece = next(pieces, None)
                worked_s += time.monotonic() - step_began_s
                if piece is None:
                    return
                yield piece

        with work.active():
            async for piece in self.lane.steps(timed, priority):
                work.progress()
                yield piece
        self._took_s.observe(time.monotonic() - began_s)
        self._compute_s.inc(worked_s)
        self._audio_s.inc(len(samples) / STT_RATE_HZ)


async def read_upload(request: web.Request) -> Upload:
    """The multipart form, read as it comes and no further than its limits. Raises BadRequest."""
    if not request.content_type.startswith("multipart/"):
        raise BadRequest("send the audio as a multipart form with the field `file`")
    upload = Upload()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in await request.multipart():
                if not isinstance(part, BodyPartReader):
                    raise BadRequest("a form inside the form is not understood")
                if part.name == "file":
                    upload.file = await read_part(part, LONGEST_FILE_BYTES)
                else:
                    take_field(upload, part.name or "", (await read_part(part, LONGEST_FIELD_BYTES)).decode())
    except TimeoutError:
        raise BadRequest(f"the form did not arrive within {BODY_TIMEOUT_S:g} s") from None
    except ValueError as error:
        raise BadRequest(f"the form cannot be read: {error}") from None
    return upload


async def read_part(part: BodyPartReader, longest_bytes: int) -> bytes:
    content = bytearray()
    while chunk := await part.read_chunk(64 * 1024):
        content += chunk
        if len(content) > longest_bytes:
            raise BadRequest(f"the field `{part.name}` is larger than {longest_bytes} bytes")
    return bytes(content)


def take_field(upload: Upload, name: str, value: str) -> None:
    if name == "language":
        upload.language = value or None
    elif name == "response_format":
        if value not in FORMATS:
            raise BadRequest(f"response_format {value!r} is not one of {', '.join(FORMATS)}")
        upload.response_format = value
    elif name == "stream" and value.lower() in ("true", "1"):
        raise BadRequest("transcriptions are not streamed here; WS /stt/live is the door for that")


def decoded(file: bytes) -> FloatSamples:
    """float32 [n] at 16 kHz of a 16-bit WAV file. Raises BadRequest for anything else."""
    pcm = read_wav(file)
    if not RATES_HZ[0] <= pcm.rate_hz <= RATES_HZ[1]:
        raise BadRequest(f"a sample rate of {pcm.rate_hz} Hz is not between {RATES_HZ[0]} and {RATES_HZ[1]}")
    if pcm.duration_ms > LONGEST_FILE_S * 1000:
        raise BadRequest(f"the audio is longer than {LONGEST_FILE_S} s")
    return to_float(pcm.resampled(STT_RATE_HZ).samples)


def in_words(pieces: Iterable[Piece]) -> str:
    return " ".join(piece.text for piece in pieces)


def answer(form: Format, language: str, duration_s: float, pieces: list[Piece]) -> web.Response:
    """As OpenAI's service answers."""
    text = in_words(pieces)
    if form == "text":
        return web.Response(text=text + "\n")
    if form == "json":
        return web.json_response({"text": text})
    segments = [
        {"id": number, "start": round(piece.start_s, 3), "end": round(piece.end_s, 3), "text": piece.text}
        for number, piece in enumerate(pieces)
    ]
    return web.json_response(
        {
            "task": "transcribe",
            "language": language,
            "duration": round(duration_s, 3),
            "text": text,
            "segments": segments,
        }
    )
