"""The chat worker: its life and its doors."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import get_args

from aiohttp import web
from prometheus_client import Counter, Histogram

from daemons import openapi, wire
from daemons.admission import Work
from daemons.doors import error_body, model_list
from daemons.errors import AtCapacity, BadRequest, CallboxError, Fenced
from daemons.llm.chat import DONE, ChatBody, Reply, event
from daemons.llm.engine import ENGINES
from daemons.llm.generation import Generated, Generation
from daemons.llm.openapi import llm_document
from daemons.llm.turns import Turns
from daemons.runtime import Runtime
from daemons.streams import Outlet, StreamCut, read_json, to_whoever_is_there, while_connected
from daemons.wire import Priority
from daemons.worker import EngineWorker

log = logging.getLogger(__name__)

LAST_WORD_TIMEOUT_S = 1.0
FIRST_TOKEN_BUCKETS_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
RATE_BUCKETS = (2, 5, 10, 20, 50, 100, 200, 500)
LEAVE_S = 2.0
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
MADE_WAY = "others' committed work needs the engine; try again"


@dataclass(eq=False, slots=True)
class _Place:
    """That a request without a call holds."""

    is_taken: bool = False  # by a committed one
    left: asyncio.Event = field(default_factory=asyncio.Event)


class LlmService(EngineWorker):
    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        places = settings.slots + settings.direct_slots
        super().__init__(runtime, "llm", threads=places, niceness=settings.llm_niceness)
        self._engine = ENGINES[settings.llm_engine](settings, self.lane, runtime.metrics)
        self._loaded_at = int(time.time())
        self._turns = Turns(across_slots=self._engine.shares_compute)
        self._speculative: dict[_Place, Work] = {}
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
        self._made_way = Counter(
            "callbox_llm_speculative_stops_total",
            "Speculative answers stopped for committed work: dropped, or begun again later",
            ["then"],
            registry=runtime.metrics,
        )

    async def load(self) -> str:
        await self._engine.load()
        self._document = llm_document(self._engine.takes)
        self.keep_checking(self._engine.check)
        return self._engine.model

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return [
            web.post("/v1/chat/completions", to_whoever_is_there(self.chat)),
            web.post("/llm/keep", to_whoever_is_there(self.keep)),
            web.get("/v1/models", self.models),
            openapi.route(lambda: self._document),
        ]

    async def close(self) -> None:
        await super().close()
        await self._engine.close()

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response(model_list(self._engine.model, self._loaded_at, self._engine.takes))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        priority = priority_of(request)
        body = await read_json(request, ChatBody)
        generation = body.generation(self._engine.takes)
        streams_usage = body.stream_options is not None and body.stream_options.include_usage
        reply = Reply(self._engine.model, streams_usage=streams_usage)
        async with self._admit(request, priority) as work:
            with self.endings.counted():
                async with while_connected(request), aclosing(self._generate(work, generation, priority)) as answer:
                    if body.stream:
                        return await self._stream(request, reply, answer, usage=streams_usage)
                    text = ""
                    async for piece in answer:
                        if isinstance(piece, Generated):
                            return web.json_response(reply.whole(text, piece))
                        text += piece
        raise AssertionError("an answer ends with Generated")

    async def keep(self, request: web.Request) -> web.Response:
        """The call's speculative answer is heard by now: it is not dropped any more."""
        async with self.admit(request) as work:
            if work.call is None:
                raise BadRequest(f"only a call's answer can be kept; {wire.CALL_ID} and what goes with it are missing")
            self._turns.keep(work.slot)
        return web.Response(status=204)

    @asynccontextmanager
    async def _admit(self, request: web.Request, priority: Priority) -> AsyncIterator[Work]:
        """As `admit`; where all places are taken, committed work takes the place of speculative work."""
        place = _Place()
        try:
            async with AsyncExitStack() as stack:
                try:
                    work = await stack.enter_async_context(self.admit(request))
                except AtCapacity:
                    if priority != "committed" or not await self._take_from_speculative():
                        raise
                    work = await stack.enter_async_context(self.admit(request))
                if priority == "speculative" and work.call is None:
                    self._speculative[place] = work
                yield work
        except Fenced:
            if place.is_taken:
                raise AtCapacity(MADE_WAY) from None
            raise
        finally:
            self._speculative.pop(place, None)
            place.left.set()

    async def _take_from_speculative(self) -> bool:
        """End one request without a call that is speculative; whether there was one, and its place is free now."""
        if not self._speculative:
            return False
        place, work = self._speculative.popitem()
        place.is_taken = True
        work.abort(MADE_WAY)
        self._made_way.labels("dropped").inc()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(place.left.wait(), LEAVE_S)
        return place.left.is_set()

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
                    await response.write(event(DONE))
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
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(LAST_WORD_TIMEOUT_S):
                await response.write(event(error_body("stream_ended", message)))
                await response.write_eof()

    async def _generate(
        self, work: Work, generation: Generation, priority: Priority
    ) -> AsyncGenerator[str | Generated, None]:
        """Pieces of the answer, "" for progress with the prompt, and last how it ended. Closing it stops the engine.

        Speculative work that must make way begins again later when none of its answer was told, and is dropped
        (AtCapacity) otherwise: who asked for it wants it committed by then, or not at all.
        """
        asked_s = time.monotonic()
        first_s: float | None = None
        generated: Generated | None = None
        pieces: asyncio.Queue[str | None] = asyncio.Queue()  # bounded by max_tokens
        while generated is None:
            async with self._turns.turn(work.slot, priority) as turn:
                with work.active():
                    generating = asyncio.create_task(self._engine.generate(work.slot, generation, pieces.put_nowait))
                    generating.add_done_callback(lambda _: pieces.put_nowait(None))
                    turn.stopped_by(generating.cancel)
                    try:
                        while (piece := await pieces.get()) is not None:
                            work.progress()
                            if piece and first_s is None:
                                first_s = time.monotonic()
                                self._first_token_s.observe(first_s - asked_s)
                            yield piece
                        if not generating.cancelled():
                            generated = generating.result()
                    finally:
                        generating.cancel()
                        await asyncio.gather(generating, return_exceptions=True)
            if generated is None:
                self._made_way.labels("waited" if first_s is None else "dropped").inc()
                if first_s is not None:
                    raise AtCapacity(MADE_WAY)
        self._count(generated, None if first_s is None else time.monotonic() - first_s)
        yield generated

    def _count(self, generated: Generated, took_s: float | None) -> None:
        self._tokens.labels("prompt").inc(generated.prompt_tokens)
        self._tokens.labels("cached").inc(generated.cached_tokens)
        self._tokens.labels("completion").inc(generated.completion_tokens)
        if took_s and generated.completion_tokens > 1:
            self._rate.observe((generated.completion_tokens - 1) / took_s)


def priority_of(request: web.Request) -> Priority:
    """Raises BadRequest for a word that is none."""
    said = request.headers.get(wire.PRIORITY, "committed")
    if said not in PRIORITIES:
        raise BadRequest(f"{wire.PRIORITY} is {' or '.join(PRIORITIES)}, not {said!r}")
    return said
