"""A client of one speech worker: its doors for audio, each timed."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from socket import SHUT_RDWR

import aiohttp
import numpy as np

from daemons import wire
from daemons.audio import TTS_RATE_HZ, Samples, read_wav
from ops.run import StepFailed
from ops.worker import Worker

RECEIVE_S = 60.0


@dataclass(slots=True)
class Heard:
    """What came of one text. `first_ms` from its first word written to its first audio, `whole_ms` to its last."""

    samples: Samples
    first_ms: float
    whole_ms: float
    rtf: float | None = None  # the worker's own: its work by its audio
    segments: list[wire.TtsSegment] = field(default_factory=list)

    @property
    def duration_ms(self) -> float:
        return len(self.samples) * 1000 / TTS_RATE_HZ


class Speaker:
    def __init__(self, worker: Worker, http: aiohttp.ClientSession) -> None:
        self.worker = worker
        self.http = http
        self._ids = iter(range(1, 2**31))

    async def stream(self, text: str) -> Heard:
        """POST /tts/stream: the first words early."""
        began_s, first_s, parts = time.perf_counter(), 0.0, []
        async with self.http.post(f"{self.worker.url}/tts/stream", json={"text": text}) as answer:
            await _check(answer)
            async for part in answer.content.iter_any():
                first_s = first_s or time.perf_counter()
                parts.append(part)
        ended_s = time.perf_counter()
        samples = np.frombuffer(b"".join(parts), np.int16)
        heard = Heard(samples, (first_s - began_s) * 1000, (ended_s - began_s) * 1000)
        heard.rtf = await self._rtf(answer.headers["X-Stream-Id"])
        return heard

    async def file(self, text: str) -> Heard:
        """POST /v1/audio/speech: whole sentences, in a file that comes when it is done."""
        began_s = time.perf_counter()
        body = {"input": text, "response_format": "wav"}
        async with self.http.post(f"{self.worker.url}/v1/audio/speech", json=body) as answer:
            await _check(answer)
            wav = await answer.read()
        took_ms = (time.perf_counter() - began_s) * 1000
        return Heard(read_wav(wav).samples, took_ms, took_ms, await self._rtf(answer.headers["X-Stream-Id"]))

    async def live(self, text: str, words_per_s: float = 0.0) -> Heard:
        """WS /tts/live, as an agent uses it: word by word, at once or at a pace."""
        async with self.http.ws_connect(f"{self.worker.url}/tts/live") as socket:
            began_s = time.perf_counter()
            writing = asyncio.create_task(self._write(socket, next(self._ids), text, words_per_s))
            heard, parts = Heard(np.zeros(0, np.int16), 0.0, 0.0), []
            async for message in replies(socket):
                if isinstance(message, wire.TtsSegment):
                    heard.segments.append(message)
                elif isinstance(message, wire.TtsDone):
                    heard.rtf = message.rtf
                    break
                elif isinstance(message, wire.StreamError):
                    raise StepFailed(f"the worker failed: {message.message}")
                else:
                    heard.first_ms = heard.first_ms or (time.perf_counter() - began_s) * 1000
                    parts.append(message)
            await writing
        heard.samples = np.concatenate([np.zeros(0, np.int16), *parts])
        heard.whole_ms = (time.perf_counter() - began_s) * 1000
        return heard

    async def abandon(self, text: str, dice: random.Random) -> None:
        """Ask for it, and leave in the middle: by a cancel, a close, or without a word. Raises StepFailed."""
        async with self.http.ws_connect(f"{self.worker.url}/tts/live") as socket:
            request = next(self._ids)
            await self._write(socket, request, text, 0.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(dice.choice([0.0, 0.01, 0.05, 0.2])):
                    async for message in replies(socket):
                        if isinstance(message, wire.TtsDone):
                            return
            way = dice.choice(["cancel", "close", "abort"])
            if way == "cancel":
                await socket.send_str(wire.TtsCancel(id=request).model_dump_json())
                async for message in replies(socket):
                    if isinstance(message, wire.TtsDone):
                        return
                raise StepFailed("a cancelled request has no end")
            if way == "abort":
                socket.get_extra_info("socket").shutdown(SHUT_RDWR)

    async def _write(
        self, socket: aiohttp.ClientWebSocketResponse, request: int, text: str, words_per_s: float
    ) -> None:
        """Word by word, each with the space before it, as tokens come."""
        began_s = time.perf_counter()
        for index, word in enumerate(text.split(" ")):
            if words_per_s:
                await asyncio.sleep(max(0.0, began_s + index / words_per_s - time.perf_counter()))
            said = f" {word}" if index else word
            await socket.send_str(wire.TtsText(id=request, text=said).model_dump_json())
        await socket.send_str(wire.TtsEnd(id=request).model_dump_json())

    async def _rtf(self, stream_id: str) -> float:
        async with self.http.get(f"{self.worker.url}/tts/stats/{stream_id}") as answer:
            await _check(answer)
            rtf: float = (await answer.json())["rtf"]
            return rtf


async def replies(
    socket: aiohttp.ClientWebSocketResponse,
) -> AsyncIterator["wire.TtsSegment | wire.TtsDone | wire.StreamError | Samples"]:
    """Raises StepFailed when the stream ends without an end."""
    while True:
        message = await socket.receive(timeout=RECEIVE_S)
        if message.type is aiohttp.WSMsgType.TEXT:
            yield wire.tts_reply.validate_json(message.data)
        elif message.type is aiohttp.WSMsgType.BINARY:
            yield np.frombuffer(wire.AudioHeader.split(message.data)[1], np.int16)
        else:
            raise StepFailed(f"the stream was closed with {socket.close_code}")


async def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status != 200:
        raise StepFailed(f"the worker answered {answer.status}: {await answer.text()}")
