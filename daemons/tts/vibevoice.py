"""WS /stream: the wire of VibeVoice-Realtime's demo server (demo/web/app.py of microsoft/VibeVoice).

Two things are added that its clients never notice: the socket is read, so that a client's close stops the work at
once, and `resume=<stream_id>&from_sample=N` goes on with a stream that was cut off.
"""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

import numpy as np
from aiohttp import WSCloseCode, web
from typing_extensions import TypedDict

from daemons.admission import Work
from daemons.audio import TTS_RATE_HZ, Samples
from daemons.errors import AtCapacity, BadRequest, CallboxError, Fenced, Unavailable
from daemons.streams import (
    CANCELLED,
    CLIENT_GONE,
    WS_CLOSE_TIMEOUT_S,
    WS_REASON_BYTES,
    ClientGone,
    Endings,
    Outlet,
    SlowReader,
)
from daemons.tts.resume import RecentStream, RecentStreams, Sounds
from daemons.tts.speech import LONGEST_TEXT_CHARS, Speech, Spoken, Voice
from daemons.wire import TTS_FRAME_SAMPLES

log = logging.getLogger(__name__)

DEFAULT_CFG_SCALE = 1.5
# VibeVoice's page copies all that it has not played yet at each frame: with minutes of that a browser stands still.
AHEAD_S = 10.0
# The text stands in the request's line: up to 12 bytes of it for a character, and some more for all the rest.
REQUEST_LINE_BYTES = 12 * LONGEST_TEXT_CHARS + 4096
FROM_SAMPLE_DIGITS = 12
TAKEN_OVER = "another connection has taken this stream over"

Event = Literal[
    "backend_request_received",
    "model_progress",
    "backend_first_chunk_sent",
    "generation_error",
    "backend_error",
    "client_disconnected",
    "backend_stream_complete",
    "backend_busy",
]


class VibeVoiceLog(TypedDict):
    """Each text frame of /stream, between its binary ones: PCM16-LE mono 24 kHz. `timestamp` is local time."""

    type: Literal["log"]
    event: Event
    data: dict[str, Any]
    timestamp: str


@dataclass(frozen=True, slots=True)
class StreamQuery:
    """What a client of VibeVoice asks for. Its engine's `cfg_scale` and `inference_steps` are told back, no more."""

    text: str
    cfg_scale: float
    inference_steps: int | None
    voice: str | None

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        """Nothing is refused: what cannot be read has its default, as VibeVoice's server does it."""
        try:
            cfg_scale = float(query.get("cfg", DEFAULT_CFG_SCALE))
        except ValueError:
            cfg_scale = DEFAULT_CFG_SCALE
        if not (math.isfinite(cfg_scale) and cfg_scale > 0):
            cfg_scale = DEFAULT_CFG_SCALE
        try:
            steps = int(query.get("steps", 0))
        except ValueError:
            steps = 0
        return cls(query.get("text", ""), cfg_scale, steps if steps > 0 else None, query.get("voice"))


class _GenerationFailed(CallboxError):
    """What VibeVoice's server tells twice: as generation_error, then as backend_error."""


class _TakenOver(CallboxError):
    pass


class _Closed(Exception):
    """The client closed its side first."""


class VibeVoiceStream:
    """One connection to /stream, from the client's wish to the last close."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        outlet: Outlet,
        voice: Voice,
        recent: RecentStreams,
        endings: Endings,
        admit: Callable[[], AbstractAsyncContextManager[Work]],
    ) -> None:
        """`socket` is open, and does not answer a close by itself."""
        self._socket = socket
        self._outlet = outlet
        self._voice = voice
        self._recent = recent
        self._endings = endings
        self._admit = admit
        self._begun = False

    async def run(self, query: Mapping[str, str]) -> None:
        """Serve the connection to its end, and whatever that is, say so before it closes."""
        try:
            await self._serve(query)
            await self._end(("backend_stream_complete", {}))
        except _Closed:
            await self._end(("client_disconnected", {}), ("backend_stream_complete", {}))
        except ConnectionError:
            return
        except SlowReader as error:
            await self._fail(str(error), WSCloseCode.TRY_AGAIN_LATER)
        except (AtCapacity, Unavailable) as error:
            if self._begun:
                await self._fail(str(error), WSCloseCode.GOING_AWAY)
            else:
                busy = {"message": str(error)}
                await self._end(("backend_busy", busy), code=WSCloseCode.TRY_AGAIN_LATER, reason="Service busy")
        except Fenced as error:
            await self._fail(str(error), WSCloseCode.POLICY_VIOLATION)
        except _GenerationFailed as error:
            await self._fail(str(error), WSCloseCode.OK, "generation_error")
        except (BadRequest, _TakenOver) as error:
            await self._fail(str(error), WSCloseCode.OK)
        except asyncio.CancelledError:
            await self._fail("this worker is stopping", WSCloseCode.GOING_AWAY)
            raise
        except Exception:
            log.exception("a stream on /stream failed")
            await self._fail("this worker failed; its log says more", WSCloseCode.INTERNAL_ERROR)

    async def _serve(self, query: Mapping[str, str]) -> None:
        stream, from_sample = self._wanted(query)
        async with stream.held() as hold, self._admit() as work:
            speaking = asyncio.create_task(self._speak(work, stream, from_sample))
            ends = [
                speaking,
                asyncio.create_task(self._until_closed()),
                asyncio.create_task(self._until(hold.taken_over)),
            ]
            try:
                ended, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                await (speaking if speaking in ended else ended.pop())
            finally:
                is_gone = self._socket.close_code == WSCloseCode.ABNORMAL_CLOSURE  # without a closing handshake
                for task in ends:
                    task.cancel(CLIENT_GONE if is_gone else CANCELLED)
                await asyncio.gather(*ends, return_exceptions=True)

    def _wanted(self, query: Mapping[str, str]) -> tuple[RecentStream, int]:
        if (stream_id := query.get("resume")) is None:
            return self._recent.begin(query), 0
        given = query.get("from_sample", "0")
        if not (given.isascii() and given.isdecimal() and len(given) <= FROM_SAMPLE_DIGITS):
            raise BadRequest(f"from_sample must be a number of samples, not {given[:40]!r}")
        return self._recent.find(stream_id), int(given)

    async def _until_closed(self) -> None:
        async for _ in self._socket:
            pass  # VibeVoice's clients say nothing
        if self._socket.close_code == WSCloseCode.ABNORMAL_CLOSURE:
            raise ClientGone
        raise _Closed

    async def _until(self, taken_over: asyncio.Event) -> None:
        await taken_over.wait()
        raise _TakenOver(TAKEN_OVER)

    async def _speak(self, work: Work, stream: RecentStream, from_sample: int) -> None:
        asked = StreamQuery.read(stream.asked)
        with self._endings.counted():
            await self._tell(
                "backend_request_received",
                text_length=len(asked.text),
                cfg_scale=asked.cfg_scale,
                inference_steps=asked.inference_steps,
                voice=asked.voice,
                stream_id=stream.id,
            )
            self._begun = True
            sounds = self._recent.sounds(stream)
            speech = self._voice.speech(work, sounds=sounds)
            if asked.text.strip():
                speech.write(asked.text)
            speech.end()
            at = from_sample
            began_s = 0.0
            async for frame in frames(self._spoken(speech, stream, sounds), from_sample):
                is_first = at == from_sample
                if is_first:
                    began_s = time.monotonic()
                # Always yields, which sending does not: a close, and the other streams, must get through
                await asyncio.sleep((at - from_sample) / TTS_RATE_HZ - AHEAD_S - (time.monotonic() - began_s))
                await self._outlet.room()
                at += len(frame)
                await self._socket.send_bytes(frame.tobytes())
                await self._tell("model_progress", generated_sec=at / TTS_RATE_HZ, chunk_sec=len(frame) / TTS_RATE_HZ)
                if is_first:
                    await self._tell("backend_first_chunk_sent")
            if from_sample > speech.samples:
                raise BadRequest(f"there is no sample {from_sample}: the stream ends after {speech.samples}")

    async def _spoken(self, speech: Speech, stream: RecentStream, sounds: Sounds) -> AsyncIterator[Spoken]:
        try:
            async for spoken in speech:
                self._recent.touch(stream, sounds)
                yield spoken
        except BadRequest as error:
            raise _GenerationFailed(str(error)) from error
        except Exception as error:
            log.exception("the engine failed")
            raise _GenerationFailed("this worker failed; its log says more") from error

    async def _fail(self, message: str, code: WSCloseCode, *before: Event) -> None:
        """As VibeVoice's server tells it: the stream is complete also when it failed."""
        events: tuple[Event, ...] = (*before, "backend_error")
        reason = "" if code == WSCloseCode.OK else message
        await self._end(
            *((event, {"message": message}) for event in events),
            ("backend_stream_complete", {}),
            code=code,
            reason=reason,
        )

    async def _end(
        self, *events: tuple[Event, dict[str, str]], code: WSCloseCode = WSCloseCode.OK, reason: str = ""
    ) -> None:
        """Be gone within two time-outs whether or not the client listens."""
        try:
            async with asyncio.timeout(2 * WS_CLOSE_TIMEOUT_S):
                for event, data in events:
                    await self._tell(event, **data)
                await self._socket.close(code=code, message=reason.encode()[:WS_REASON_BYTES])
        except (TimeoutError, ConnectionError):
            self._outlet.abandon()

    async def _tell(self, event: Event, **data: object) -> None:
        # The wire has no zone; VibeVoice's page sorts these among its own, in local time.
        timestamp = datetime.now().isoformat(" ", "milliseconds")
        told: VibeVoiceLog = {"type": "log", "event": event, "data": data, "timestamp": timestamp}
        await self._socket.send_str(json.dumps(told))


async def frames(speech: AsyncIterator[Spoken], from_sample: int) -> AsyncIterator[Samples]:
    """TTS_FRAME_SAMPLES each, from `from_sample` on; the last one is what is left."""
    rest: Samples = np.zeros(0, np.int16)
    async for spoken in speech:
        samples = np.concatenate([rest, spoken.samples[from_sample:]])
        from_sample = max(0, from_sample - len(spoken.samples))
        whole = len(samples) - len(samples) % TTS_FRAME_SAMPLES
        for at in range(0, whole, TTS_FRAME_SAMPLES):
            yield samples[at : at + TTS_FRAME_SAMPLES]
        rest = samples[whole:]
    if len(rest):
        yield rest
