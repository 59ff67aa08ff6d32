"""The engine that asks another server, against one that checks what it is asked and misbehaves as it is told."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from email.utils import formatdate

import pytest
from prometheus_client import CollectorRegistry

from daemons.errors import AtCapacity, BadRequest, CallboxError, ConfigurationError, Unavailable
from daemons.llm.engines.upstream import Timeouts, Upstream
from daemons.llm.generation import OMNI, TEXT_ONLY, WARM_UP, Audio, ChatMessage, Generated, Generation, Image
from tests.llm import upstream_server as acts
from tests.llm.upstream_server import MODEL, WORDS, Act, UpstreamServer
from tests.waiting import until

QUICK = Timeouts(connect_s=1.0, first_token_s=3.0, between_tokens_s=0.5, check_s=1.0)
QUESTION = Generation(messages=[ChatMessage("user", "What is the capital of France?")], max_tokens=20)
ANSWER = "".join(WORDS)

Open = Callable[[UpstreamServer], Awaitable[Upstream]]


@pytest.fixture
def metrics() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def open_engine(metrics: CollectorRegistry) -> AsyncIterator[Open]:
    opened: list[Upstream] = []

    async def open_engine(server: UpstreamServer) -> Upstream:
        engine = Upstream(server.url, model="", api_key="", takes=OMNI, metrics=metrics, timeouts=QUICK)
        opened.append(engine)
        held, server.acts = server.acts, type(server.acts)()
        await engine.load()
        server.acts = held
        server.asked.clear()
        return engine

    yield open_engine
    for engine in opened:
        await engine.close()


async def said(engine: Upstream, generation: Generation = QUESTION) -> list[str]:
    pieces: list[str] = []
    await engine.generate(0, generation, pieces.append)
    return pieces


async def test_an_answer_is_streamed_through(open_engine: Open) -> None:
    async with UpstreamServer() as server:
        engine = await open_engine(server)
        pieces: list[str] = []
        generated = await engine.generate(0, QUESTION, pieces.append)
    assert pieces == WORDS
    assert generated == Generated("stop", 11, 4, 7)


async def test_pieces_come_as_they_are_made(open_engine: Open) -> None:
    async with UpstreamServer(acts.hangs_in_the_middle) as server:
        engine = await open_engine(server)
        pieces: list[str] = []
        with pytest.raises(Unavailable):
            await engine.generate(0, QUESTION, pieces.append)
    assert pieces == WORDS[:2]


async def test_it_is_asked_what_the_client_asked_and_nothing_else(open_engine: Open) -> None:
    async with UpstreamServer() as server:
        engine = await open_engine(server)
        await said(engine)
        full = replace(
            QUESTION,
            temperature=0.0,
            top_p=0.5,
            repeat_penalty=1.1,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            stop=["\n"],
            seed=3,
        )
        await said(engine, full)
    always = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "max_tokens": 20,
        "modalities": ["text"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    wishes = {"temperature": 0.0, "top_p": 0.5, "presence_penalty": 0.5, "frequency_penalty": 0.25, "seed": 3}
    assert server.asked == [always, {**always, **wishes, "repetition_penalty": 1.1, "stop": ["\n"]}]


async def test_a_model_with_a_voice_is_asked_for_text_alone(open_engine: Open) -> None:
    async with UpstreamServer(acts.also_says_it) as server:
        assert await said(await open_engine(server)) == WORDS


async def test_one_that_only_reads_is_not_asked_for_less(metrics: CollectorRegistry) -> None:
    async with UpstreamServer() as server:
        engine = Upstream(server.url, model="", api_key="", takes=TEXT_ONLY, metrics=metrics, timeouts=QUICK)
        await engine.load()
        await said(engine)
        await engine.close()
    assert all("modalities" not in body for body in server.asked)


async def test_sound_and_pictures_are_passed_on_in_their_place(open_engine: Open) -> None:
    parts = ("Hear ", Audio("AAAA", "wav"), " and see ", Image("data:image/png;base64,AAAA"))
    async with UpstreamServer() as server:
        engine = await open_engine(server)
        await said(
            engine, replace(QUESTION, messages=[ChatMessage("user", parts), ChatMessage("user", ("just ", "text"))])
        )
    heard, read = server.asked[0]["messages"]
    assert heard["content"] == [
        {"type": "text", "text": "Hear "},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "text", "text": " and see "},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    assert read["content"] == "just text"


async def test_a_prompt_is_read_without_an_answer(open_engine: Open) -> None:
    async with UpstreamServer() as server:
        engine = await open_engine(server)
        pieces: list[str] = []
        generated = await engine.generate(0, replace(QUESTION, max_tokens=0), pieces.append)
    assert server.asked[0]["max_tokens"] == 1
    assert set(pieces) == {""}
    assert generated.completion_tokens == 0


async def test_without_usage_the_pieces_are_counted(open_engine: Open) -> None:
    async with UpstreamServer(acts.without_usage) as server:
        engine = await open_engine(server)
        generated = await engine.generate(0, QUESTION, lambda _: None)
    assert generated == Generated("stop", 0, len(WORDS), 0)


@pytest.mark.parametrize(
    "act",
    [
        acts.refuses(500, "CUDA out of memory"),
        acts.refuses(503, "warming up"),
        acts.refuses(429, "too many requests"),
        acts.refuses(429, "too many requests", Retry_After="1"),
        acts.refuses(429, "too many requests", Retry_After=formatdate(0, usegmt=True)),
        acts.refuses(429, "too many requests", Retry_After="soon"),
        acts.fails_in_html,
        acts.hangs_up_at_once,
        acts.says_garbage(b"{nonsense"),
        acts.says_garbage(b'{"error": {"message": "engine died", "code": 500}}'),
    ],
)
async def test_what_may_pass_is_asked_again_before_the_first_token(
    open_engine: Open, metrics: CollectorRegistry, act: Act
) -> None:
    async with UpstreamServer(act) as server:
        engine = await open_engine(server)
        assert await said(engine) == WORDS
    assert len(server.asked) == 2
    assert metrics.get_sample_value("callbox_llm_upstream_retries_total") == 1


async def test_a_wait_that_the_upstream_asks_for_is_kept(open_engine: Open) -> None:
    async with UpstreamServer(acts.refuses(429, "slowly", Retry_After="1")) as server:
        engine = await open_engine(server)
        began_s = time.monotonic()
        await said(engine)
    assert time.monotonic() - began_s >= 1


@pytest.mark.parametrize(
    ("act", "kind", "words", "times"),
    [
        (acts.refuses(500, "CUDA out of memory"), Unavailable, r"CUDA out of memory .status 500", 4),
        (acts.fails_in_html, Unavailable, "Bad Gateway", 4),
        (acts.hangs_up_at_once, Unavailable, "cannot be reached", 4),
        (acts.refuses(429, "quota of the day"), AtCapacity, "quota of the day", 4),
        (acts.refuses(429, "quota of the day", Retry_After="3600"), AtCapacity, "quota of the day", 1),
        (acts.refuses(400, "context is 8192 tokens"), BadRequest, "context is 8192 tokens", 1),
        (acts.refuses(404, "no such model"), BadRequest, "no such model", 1),
        (acts.refuses(422, "seed: not a number"), BadRequest, "seed: not a number", 1),
        (acts.refuses(403, "not your key"), Unavailable, "not your key", 1),
        (acts.refuses(302, "", Location="http://elsewhere/"), Unavailable, "elsewhere", 1),
        (acts.hangs, Unavailable, "began no answer within 3 s", 1),
        (acts.hangs_in_the_middle, Unavailable, "said nothing for 0.5 s", 1),
        (acts.hangs_up_in_the_middle, Unavailable, "cannot be reached", 1),
        (acts.ends_without_a_reason, Unavailable, "closed the stream", 1),
        (acts.says_garbage(b"{nonsense", "It "), Unavailable, "no answer", 1),
        (acts.says_garbage(b"[1]", "It "), Unavailable, "no answer", 1),
        (acts.says_garbage(b'{"choices": [7]}', "It "), Unavailable, "no answer", 1),
        (acts.says_garbage(b'{"error": {"message": "engine died"}}', "It "), Unavailable, "engine died", 1),
        (acts.says_garbage(b'{"error": {"message": "too long", "code": 400}}', "It "), BadRequest, "too long", 1),
        (acts.says_garbage(b"x" * 3 * 2**20, "It "), Unavailable, "no answer", 1),
        (acts.never_ends, Unavailable, "does not stop", 1),
    ],
)
async def test_what_lasts_is_told_in_words(
    open_engine: Open, act: Act, kind: type[CallboxError], words: str, times: int
) -> None:
    async with UpstreamServer(*[act] * 4) as server:
        engine = await open_engine(server)
        with pytest.raises(kind, match=words):
            await said(engine)
        assert len(server.asked) == times
        server.acts.clear()
        assert await said(engine) == WORDS  # it serves on


async def test_slow_is_not_broken(open_engine: Open) -> None:
    async with UpstreamServer(acts.slowly(0.3)) as server:
        engine = await open_engine(server)
        assert await said(engine) == WORDS


@pytest.mark.parametrize("act", [acts.hangs, acts.hangs_in_the_middle, acts.never_ends])
async def test_a_cancel_closes_the_request_at_once(open_engine: Open, act: Act) -> None:
    async with UpstreamServer(act) as server:
        engine = await open_engine(server)
        asking = asyncio.create_task(said(engine, replace(QUESTION, max_tokens=32_000)))
        await until(lambda: bool(server.asked), within_s=5)
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(server.client_left.wait(), 1)


# Its life


async def test_it_waits_for_an_upstream_that_starts_later(metrics: CollectorRegistry) -> None:
    server = UpstreamServer()
    engine = Upstream(server.url, model="", api_key="", takes=OMNI, metrics=metrics, timeouts=QUICK)
    loading = asyncio.create_task(engine.load())
    try:
        await asyncio.sleep(0.2)
        assert not loading.done()
        async with server:
            await asyncio.wait_for(loading, 10)
            assert engine.model == MODEL
            assert len(server.asked) == 1
            assert server.asked[0]["max_tokens"] == WARM_UP.max_tokens
            await engine.check()
        with pytest.raises(Unavailable, match="does not answer"):
            await engine.check()
        with pytest.raises(Unavailable, match="cannot be reached"):
            await said(engine)
        async with UpstreamServer(port=server.port):
            await engine.check()
    finally:
        await engine.close()


async def test_its_key_is_sent_and_a_wrong_one_is_a_bad_setting(metrics: CollectorRegistry) -> None:
    async with UpstreamServer(key="right") as server:
        engine = Upstream(server.url, model="", api_key="right", takes=OMNI, metrics=metrics, timeouts=QUICK)
        await engine.load()
        await engine.close()
        wrong = Upstream(server.url, model="", api_key="wrong", takes=OMNI, metrics=CollectorRegistry(), timeouts=QUICK)
        with pytest.raises(ConfigurationError, match="API_KEY"):
            await wrong.load()
        await wrong.close()


async def test_a_model_that_it_does_not_have_is_a_bad_setting(metrics: CollectorRegistry) -> None:
    async with UpstreamServer(acts.refuses(404, "The model does not exist")) as server:
        engine = Upstream(server.url, model=MODEL, api_key="", takes=OMNI, metrics=metrics, timeouts=QUICK)
        with pytest.raises(ConfigurationError, match=r"UPSTREAM_MODEL.*does not exist"):
            await engine.load()
        await engine.close()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000/v1", "file:///etc/passwd"])
def test_an_address_is_wanted(metrics: CollectorRegistry, url: str) -> None:
    with pytest.raises(ConfigurationError, match="UPSTREAM_URL"):
        Upstream(url, model="", api_key="", takes=OMNI, metrics=metrics)
