"""A client of VibeVoice's wire that insists on every step of it."""

import json
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import numpy as np

from daemons.audio import TTS_RATE_HZ, Samples

TIMEOUT_S = 30.0
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}")
Told = tuple[str, dict[str, Any]]


@dataclass
class Heard:
    """What came on one connection."""

    request: dict[str, Any] = field(default_factory=dict)
    frames: list[int] = field(default_factory=list)
    samples: Samples = field(default_factory=lambda: np.zeros(0, np.int16))
    ends: list[Told] = field(default_factory=list)
    close: tuple[int | None, str] = (None, "")

    @property
    def stream_id(self) -> str:
        return str(self.request["stream_id"])


class VibeVoiceClient:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, from_sample: int = 0) -> None:
        self._socket = socket
        self._at = from_sample
        self._last_told = ""
        self.heard = Heard()

    async def begin(self) -> dict[str, Any]:
        event, data = await self._event()
        assert event == "backend_request_received"
        assert list(data) == ["text_length", "cfg_scale", "inference_steps", "voice", "stream_id"]
        self.heard.request = data
        return data

    async def frame(self) -> bool:
        """One more frame, and what must follow it; False when the stream has come to its end instead."""
        message = await self._message()
        if isinstance(message, tuple):
            self.heard.ends.append(message)
            return False
        samples = np.frombuffer(message, "<i2")
        self.heard.samples = np.concatenate([self.heard.samples, samples])
        self._at += len(samples)
        event, data = await self._event()
        assert event == "model_progress"
        assert data == {"generated_sec": self._at / TTS_RATE_HZ, "chunk_sec": len(samples) / TTS_RATE_HZ}
        if not self.heard.frames:
            assert await self._event() == ("backend_first_chunk_sent", {})
        self.heard.frames.append(len(samples))
        return True

    async def end(self) -> Heard:
        """All that is left."""
        while not self.heard.ends and await self.frame():
            pass
        return await self.farewell()

    async def farewell(self) -> Heard:
        """Nothing but events, then the close."""
        while (message := await self._socket.receive(timeout=TIMEOUT_S)).type is aiohttp.WSMsgType.TEXT:
            self.heard.ends.append(self._read(message.data))
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        self.heard.close = (message.data, message.extra or "")
        return self.heard

    async def _event(self) -> Told:
        message = await self._message()
        assert isinstance(message, tuple), "audio where an event belongs"
        return message

    async def _message(self) -> Told | bytes:
        message = await self._socket.receive(timeout=TIMEOUT_S)
        if message.type is aiohttp.WSMsgType.BINARY:
            assert self.heard.request, "audio before the request was acknowledged"
            data: bytes = message.data
            return data
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return self._read(message.data)

    def _read(self, text: str) -> Told:
        message = json.loads(text)
        assert list(message) == ["type", "event", "data", "timestamp"]
        assert message["type"] == "log"
        assert TIMESTAMP.fullmatch(message["timestamp"])
        assert abs((datetime.now() - datetime.fromisoformat(message["timestamp"])).total_seconds()) < 120
        assert message["timestamp"] >= self._last_told
        self._last_told = message["timestamp"]
        return message["event"], message["data"]
