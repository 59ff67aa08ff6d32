"""The chat worker: its life and its doors."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing

from aiohttp import web
from prometheus_client import Counter, Histogram, ProcessCollector

from daemons.admission import Work
from daemons.errors import CallboxError
from daemons.llm.chat import DONE, ChatBody, Reply, event
from daemons.llm.engine import ENGINES
from daemons.llm.generation import ChatMessage, Generated, Generation
from daemons.runtime import Runtime
from daemons.streams import Outlet, StreamCut, read_json, to_whoever_is_there, while_connected
from daemons.worker import EngineWorker

LAST_WORD_TIMEOUT_S = 1.0
FIRST_TOKEN_BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
RATE_BUCKETS = (2, 5, 10, 20, 50, 100, 200, 500)
WARM_UP = Generation(
    messages=[ChatMessage("system", "You are on the phone."), ChatMessage("user", "Hello?")],
    max_tokens=2,
    temperature=0.0,
    top_p=1.0,
    repeat_penalty=1.0,
    stop=[],
    seed=0,
)


class LlmService(EngineWorker):
    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        places = settings.slots + settings.direct_slots
        super().__init__(runtime, "llm", threads=places)
        self._engine = ENGINES[settings.llm_engine](settings)
        self._model = settings.llm_model
        self._loaded_at = int(time.time())
        # A slot's engine takes one request at a time; the next waits here, not in a thread that others need.
        self._turns = [asyncio.Lock() for _ in range(places)]
        self._first_token_s = Histogram(
            "callbox_llm_first_token_seconds",
            "From the request to the first text",
            buckets=FIRST_TOKEN_BUCKETS_S,
            registry=runtime.metrics,
        )
        self._rate = Histogram(
            "callbox_llm_tokens_per_second",
            "Tokens of an answer by the time after its first",
            buckets=RATE_BUCKETS,
            registry=runtime.metrics,
        )
        self._tokens = Counter(
            "callbox_llm_tokens_total",
            "Tokens read, found in the cache and written",
            ["kind"],
            registry=runtime.metrics,
        )
        ProcessCollector(registry=runtime.metrics)

    async def load(self) -> str:
        def load(_: threading.Event) -> None:
            self._engine.load()
            for slot in range(len(self._turns)):
                self._engine.generate(slot, WARM_UP, lambda _: False)

        await self.lane.run(load)
        return self._model

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [web.post("/v1/chat/completions", to_whoever_is_there(self.chat)), web.get("/v1/models", self.models)]

    async def close(self) -> None:
        await super().close()
        self._engine.close()

    async def models(self, request: web.Request) -> web.Response:
        model = {"id": self._model, "object": "model", "created": self._loaded_at, "owned_by": "callbox"}
        return web.json_response({"object": "list", "data": [model]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request, ChatBody)
        generation = body.generation()
        reply = Reply(self._model)
        async with self.admit(request) as work:
            with self.endings.counted():
                async with while_connected(request), aclosing(self._generate(work, generation)) as answer:
                    if body.stream:
                        return await self._stream(request, reply, answer, usage=body.stream_options.include_usage)
                    text = ""
                    async for piece in answer:
                        if isinstance(piece, Generated):
                            return web.json_response(reply.whole(text, piece))
                        text += piece
        raise AssertionError("an answer ends with Generated")

    async def _stream(
        self, request: web.Request, reply: Reply, answer: AsyncIterator[str | Generated], *, usage: bool
    ) -> web.StreamResponse:
        """Server-sent events. The answer's first piece is awaited before the status, so that a refusal can be one."""
        outlet = Outlet(request)
        response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        try:
            async for piece in answer:
                if not response.prepared:
                    await response.prepare(request)
                    await response.write(reply.chunk({"role": "assistant", "content": ""}))
                await outlet.room()
                if isinstance(piece, Generated):
                    await response.write(reply.chunk({}, piece.reason))
                    if usage:
                        await response.write(reply.usage_chunk(piece))
                    await response.write(DONE)
                elif piece:
                    await response.write(reply.chunk({"content": piece}))
        except (asyncio.CancelledError, CallboxError) as error:
            if not response.prepared:
                raise
            await self._end_with_error(response, str(error) or "this worker is stopping")
            raise StreamCut(response) from error
        await response.write_eof()
        return response

    async def _end_with_error(self, response: web.StreamResponse, message: str) -> None:
        error = {"message": message, "type": "stream_ended", "code": "stream_ended"}
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(LAST_WORD_TIMEOUT_S):
                await response.write(event({"error": error}))
                await response.write_eof()

    async def _generate(self, work: Work, generation: Generation) -> AsyncGenerator[str | Generated, None]:
        """Pieces of the answer, "" for progress with the prompt, and last how it ended. Closing it stops the engine."""
        asked_s = time.monotonic()
        first_s: float | None = None
        pieces: asyncio.Queue[str | None] = asyncio.Queue()  # bounded by max_tokens
        loop = asyncio.get_running_loop()

        def generate(cancelled: threading.Event) -> Generated:
            def emit(text: str) -> bool:
                loop.call_soon_threadsafe(pieces.put_nowait, text)
                return cancelled.is_set()

            return self._engine.generate(work.slot, generation, emit)

        async with self._turns[work.slot]:
            with work.active():
                generating = asyncio.create_task(self.lane.run(generate))
                generating.add_done_callback(lambda _: pieces.put_nowait(None))
                try:
                    while (piece := await pieces.get()) is not None:
                        work.progress()
                        if piece and first_s is None:
                            first_s = time.monotonic()
                            self._first_token_s.observe(first_s - asked_s)
                        yield piece
                    generated = await generating
                finally:
                    generating.cancel()
                    await asyncio.gather(generating, return_exceptions=True)
        self._count(generated, None if first_s is None else time.monotonic() - first_s)
        yield generated

    def _count(self, generated: Generated, took_s: float | None) -> None:
        self._tokens.labels("prompt").inc(generated.prompt_tokens)
        self._tokens.labels("cached").inc(generated.cached_tokens)
        self._tokens.labels("completion").inc(generated.completion_tokens)
        if took_s and generated.completion_tokens > 1:
            self._rate.observe((generated.completion_tokens - 1) / took_s)
