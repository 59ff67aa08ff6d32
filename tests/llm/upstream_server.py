"""A server that speaks OpenAI's chat protocol, checks what it is asked, and misbehaves as it is told."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from ops.free_ports import free_port

MODEL = "upstream-1"
WORDS = ["It ", "is ", "Paris", "."]
Act = Callable[["UpstreamServer", web.Request], Awaitable[web.StreamResponse]]


class UpstreamServer:
    """Answers each request by the next of `acts`, and when none is left, well."""

    def __init__(self, *acts: Act, key: str = "", port: int = 0, model: str = MODEL) -> None:
        self.model = model
        self.acts = deque(acts)
        self.asked: list[dict[str, Any]] = []
        self.client_left = asyncio.Event()
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._key = key

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 * 2**20)
        app.add_routes([web.get("/v1/models", self._models), web.post("/v1/chat/completions", self._chat)])
        app.add_routes([web.get("/health", self._health)])
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, request: web.Request) -> web.Response:
        if problem := self._refusal(request):
            return problem
        return web.json_response({"object": "list", "data": [{"id": self.model, "object": "model"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if problem := self._refusal(request):
            return problem
        body = await request.json()
        assert body["stream"] is True
        assert body["model"] == self.model
        assert body["stream_options"] == {"include_usage": True}
        assert {type(value) for value in body.values()}.isdisjoint({type(None)})
        self.asked.append(body)
        if self.acts:
            return await self.acts.popleft()(self, request)
        return await self.answer(request, body)

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return await well(self, request)

    def _refusal(self, request: web.Request) -> web.Response | None:
        if self._key and request.headers.get("Authorization") != f"Bearer {self._key}":
            return refusal(401, "Incorrect API key provided")
        return None

    async def until_client_leaves(self, request: web.Request) -> None:
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        self.client_left.set()


def refusal(status: int, message: str, **headers: str) -> web.Response:
    error = {"error": {"message": message, "type": "some_error", "param": None, "code": None}}
    return web.json_response(error, status=status, headers={name.replace("_", "-"): at for name, at in headers.items()})


async def begin(request: web.Request, words: list[str]) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = "text/event-stream"
    await response.prepare(request)
    await response.write(b": a comment, to keep the connection\n\n")
    await send(response, {"role": "assistant", "content": ""})
    for word in words:
        await send(response, {"content": word})
    return response


async def send(response: web.StreamResponse, delta: dict[str, str], **choice: Any) -> None:
    chunk = {"id": "c1", "object": "chat.completion.chunk", "model": MODEL}
    choices = [{"index": 0, "delta": delta, "finish_reason": None, **choice}]
    await response.write(b"data: " + json.dumps({**chunk, "choices": choices}).encode() + b"\n\n")


async def end(response: web.StreamResponse, usage: dict[str, Any] | None) -> None:
    await send(response, {}, finish_reason="stop")
    if usage is not None:
        await response.write(b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")


# The ways to answer


async def well(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
    response = await begin(request, WORDS)
    details = {"cached_tokens": 7}
    await end(response, {"prompt_tokens": 11, "completion_tokens": 4, "prompt_tokens_details": details})
    return response


async def without_usage(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
    response = await begin(request, WORDS)
    await end(response, None)
    return response


async def also_says_it(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
    """As vLLM-Omni with all stages, which streams its voice in the place of text to who does not ask for text alone."""
    aloud = server.asked[-1].get("modalities") != ["text"]
    response = await begin(request, [*WORDS, *(["UklGRiQAAABXQVZF"] if aloud else [])])
    await end(response, None)
    return response


def refuses(status: int, message: str, **headers: str) -> Act:
    async def act(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
        return refusal(status, message, **headers)

    return act


async def fails_in_html(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
    return web.Response(status=502, text="<h1>Bad Gateway</h1>", content_type="text/html")


async def hangs(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
    await server.until_client_leaves(request)
    return web.Response()


async def hangs_in_the_middle(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
    response = await begin(request, WORDS[:2])
    await server.until_client_leaves(request)
    return response


async def hangs_up_at_once(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hangs_up_in_the_middle(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
    await begin(request, WORDS[:2])
    assert request.transport is not None
    await asyncio.sleep(0.05)
    request.transport.abort()
    return web.Response()


async def ends_without_a_reason(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
    return await begin(request, WORDS[:2])


def says_garbage(garbage: bytes, *words: str) -> Act:
    async def act(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
        response = await begin(request, list(words))
        await response.write(b"data: " + garbage + b"\n\n")
        await end(response, None)
        return response

    return act


def slowly(pause_s: float) -> Act:
    async def act(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
        response = await begin(request, [])
        for word in WORDS:
            await asyncio.sleep(pause_s)
            await send(response, {"content": word})
        await end(response, None)
        return response

    return act


async def never_ends(server: UpstreamServer, request: web.Request) -> web.StreamResponse:
    response = await begin(request, [])
    try:
        while True:
            await send(response, {"content": "and so on " * 100})
            await asyncio.sleep(0)
    except ConnectionError:
        server.client_left.set()
        raise
