"""Speech and chat workers that answer from a script and cost next to nothing.

On the real runtime, registered as any worker is, and at their doors what the agent hears and says there:
`python -m ops.bench.load.scripted stt|llm|tts WAV`.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from aiohttp import WSMsgType, web

from daemons import wire
from daemons.audio import STT_RATE_HZ, Samples, read_wav
from daemons.llm.chat import DONE, Reply, event
from daemons.runtime import Runtime, main, until_idle
from daemons.streams import WS_HEARTBEAT_S, to_whoever_is_there

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris, and it lies on a river called the Seine."
MAX_MESSAGE_BYTES = 4 * 2**20


class _Scripted:
    role: str
    direct_slots = 0

    def __init__(self, runtime: Runtime, answer: Samples) -> None:
        """`answer` (int16 [n] at 24 kHz) is what every text sounds like."""
        self.slots = runtime.settings.slots
        self._runtime = runtime
        self._answer = answer

    async def load(self) -> str:
        return "a script"

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        raise NotImplementedError

    async def drain(self) -> None:
        await until_idle(self._runtime.health)

    async def close(self) -> None:
        """It holds nothing."""


class _Socket(_Scripted):
    """One with a door of WebSocket."""

    async def _live(self, request: web.Request) -> web.WebSocketResponse:
        async with self._runtime.admission.admit(request.headers):
            socket = web.WebSocketResponse(heartbeat=WS_HEARTBEAT_S, compress=False, max_msg_size=MAX_MESSAGE_BYTES)
            await socket.prepare(request)
            await self._serve(socket)
            return socket

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        raise NotImplementedError


class Stt(_Socket):
    """Hears QUESTION in every utterance."""

    role = "stt"

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [web.get("/stt/live", to_whoever_is_there(self._live))]

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        utterance, heard_bytes = 0, 0
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                heard_bytes += len(message.data)
                continue
            asked = wire.stt_request.validate_json(message.data)
            if isinstance(asked, wire.SttStart):
                utterance, heard_bytes = asked.utterance, 0
            elif isinstance(asked, wire.SttCommit):
                audio_ms = heard_bytes / 2 / STT_RATE_HZ * 1000
                final = wire.SttFinal(
                    utterance=utterance, id=asked.id, text=QUESTION, audio_ms=audio_ms, compute_ms=0.0
                )
                await socket.send_str(final.model_dump_json())


class Llm(_Scripted):
    """Writes ANSWER, word by word, to whoever asks."""

    role = "llm"

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.post("/v1/chat/completions", to_whoever_is_there(self._chat)),
            web.post("/llm/keep", self._keep),
        ]

    async def _keep(self, request: web.Request) -> web.Response:
        async with self._runtime.admission.admit(request.headers):
            return web.Response(status=204)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        async with self._runtime.admission.admit(request.headers):
            body = await request.json()
            response = web.StreamResponse()
            response.content_type = "text/event-stream"
            await response.prepare(request)
            reply = Reply("a script")
            if body["max_tokens"]:
                for word in ANSWER.split():
                    await response.write(reply.chunk({"content": f"{word} "}))
            await response.write(event(DONE))
            return response


class Tts(_Socket):
    """Says the same sounds for every text, as soon as the first of it comes."""

    role = "tts"

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.get("/tts/live", to_whoever_is_there(self._live)),
            web.post("/tts/stream", to_whoever_is_there(self._stream)),
        ]

    async def _stream(self, request: web.Request) -> web.Response:
        async with self._runtime.admission.admit(request.headers):
            return web.Response(body=self._answer.tobytes(), content_type="audio/pcm")

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        said = -1
        async for message in socket:
            asked = wire.tts_request.validate_json(message.data)
            if isinstance(asked, wire.TtsText) and asked.id > said:
                said = asked.id
                await self._say(socket, asked)
            elif isinstance(asked, wire.TtsEnd | wire.TtsCancel):
                done = wire.TtsDone(
                    id=asked.id,
                    reason="finished" if isinstance(asked, wire.TtsEnd) else "cancelled",
                    samples=len(self._answer),
                    ttfa_ms=0.0,
                    rtf=0.0,
                    stages={},
                )
                await socket.send_str(done.model_dump_json())

    async def _say(self, socket: web.WebSocketResponse, asked: wire.TtsText) -> None:
        segment = wire.TtsSegment(id=asked.id, text=ANSWER, from_sample=0, samples=len(self._answer))
        await socket.send_str(segment.model_dump_json())
        for at in range(0, len(self._answer), wire.TTS_FRAME_SAMPLES):
            header = wire.AudioHeader(asked.id, at)
            await socket.send_bytes(header.pack() + self._answer[at : at + wire.TTS_FRAME_SAMPLES].tobytes())


ROLES = {one.role: one for one in (Stt, Llm, Tts)}

if __name__ == "__main__":
    _role, _wav = sys.argv[1:]
    main(lambda runtime: ROLES[_role](runtime, read_wav(Path(_wav).read_bytes()).samples))
