import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from redis.asyncio import Redis

from daemons import wire
from daemons.registry import Registry
from tests.llm.conftest import SMALL_MODEL
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Write a very long story about a dragon and a village."}]
ENDLESS = {"temperature": 0, "repeat_penalty": 1.0}  # by chance the small model may end a story after a few words


@pytest.fixture
async def session(llm: WorkerProcess, all_places_free: None) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(llm.url, timeout=aiohttp.ClientTimeout(100)) as session:
        yield session


async def ask(session: aiohttp.ClientSession, **body: object) -> dict[str, Any]:
    async with session.post("/v1/chat/completions", json={"messages": QUESTION, "temperature": 0, **body}) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, answer
        return answer


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any] | str]:
    async for line in response.content:
        if line.strip():
            assert line.startswith(b"data: ")
            data = line[6:].strip()
            yield "[DONE]" if data == b"[DONE]" else json.loads(data)


async def first_text(response: aiohttp.ClientResponse) -> None:
    """Read until the answer's first word, so that the engine is at work."""
    async for event in events(response):
        if isinstance(event, dict) and event["choices"][0]["delta"].get("content"):
            return
    raise AssertionError("the stream ended without a word")


def error_in(text: str) -> str:
    error: dict[str, Any] = json.loads(text)["error"]
    assert set(error) == {"message", "type", "code"}
    return str(error["message"])


async def test_an_answer_has_openai_s_shape(session: aiohttp.ClientSession) -> None:
    answer = await ask(session, model="gpt-4o")
    [choice] = answer["choices"]
    assert answer["object"] == "chat.completion"
    assert answer["model"] == SMALL_MODEL
    assert choice["message"]["role"] == "assistant"
    assert "Paris" in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_stream_says_the_same_and_ends_with_done(session: aiohttp.ClientSession, include_usage: bool) -> None:
    body = {"messages": QUESTION, "temperature": 0, "stream": True, "stream_options": {"include_usage": include_usage}}
    async with session.post("/v1/chat/completions", json=body) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        heard = [event async for event in events(response)]
    assert heard[-1] == "[DONE]"
    chunks = [event for event in heard if isinstance(event, dict)]
    with_choice = [chunk for chunk in chunks if chunk["choices"]]
    assert with_choice[0]["choices"][0]["delta"]["role"] == "assistant"
    assert with_choice[-1]["choices"][0]["finish_reason"] == "stop"
    assert "Paris" in "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in with_choice)
    assert [chunk["usage"]["completion_tokens"] > 0 for chunk in chunks if not chunk["choices"]] == (
        [True] if include_usage else []
    )
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_stop_and_length_are_kept(session: aiohttp.ClientSession) -> None:
    [choice] = (await ask(session, stop="Paris"))["choices"]
    assert "Paris" not in choice["message"]["content"]
    answer = await ask(session, max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3
    answer = await ask(session, max_completion_tokens=2, max_tokens=5)
    assert answer["usage"]["completion_tokens"] == 2


async def test_a_prompt_read_beforehand_is_in_the_cache(session: aiohttp.ClientSession) -> None:
    messages = [{"role": "system", "content": "You like mountains, rivers, trees and long walks."}, *QUESTION]
    read = await ask(session, messages=messages, max_tokens=0)
    assert read["choices"][0]["message"]["content"] == ""
    usage = (await ask(session, messages=messages))["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1


async def test_parts_of_text_are_understood(session: aiohttp.ClientSession) -> None:
    parts = [{"type": "text", "text": "What is the capital "}, {"type": "text", "text": "of France?"}]
    answer = await ask(session, messages=[{"role": "user", "content": parts}])
    assert "Paris" in answer["choices"][0]["message"]["content"]


async def test_the_model_is_listed(session: aiohttp.ClientSession) -> None:
    async with session.get("/v1/models") as response:
        assert [model["id"] for model in (await response.json())["data"]] == [SMALL_MODEL]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "role"),
        ({"messages": QUESTION, "temperature": "hot"}, "temperature"),
        ({"messages": QUESTION, "max_tokens": -1}, "max_tokens"),
        ({"messages": QUESTION, "n": 2}, "n"),
        ({"messages": QUESTION, "tools": [{}]}, "tools"),
        ({"messages": QUESTION, "response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input_audio"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "context"),
        ({"messages": [{"role": "user", "content": "x" * 200_001}]}, "200000"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_bad_body_is_refused_in_a_sentence(
    session: aiohttp.ClientSession, body: dict[str, object], reason: str, stream: bool
) -> None:
    async with session.post("/v1/chat/completions", json={**body, "stream": stream}) as response:
        assert response.status == 400
        assert reason in error_in(await response.text())


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_stops_the_answer(
    session: aiohttp.ClientSession, llm: WorkerProcess, stream: bool
) -> None:
    aborted = await asyncio.to_thread(llm.metric, "callbox_aborted_steps_total")
    timed = await asyncio.to_thread(llm.metric, "callbox_cancel_to_stop_seconds_count")
    body = {"messages": STORY, "max_tokens": 1500, "stream": stream, **ENDLESS}

    async def begin() -> None:
        async with session.post("/v1/chat/completions", json=body) as response:
            await first_text(response)
            response.close()

    beginning = asyncio.create_task(begin())
    if stream:
        await beginning
    else:
        while not (await asyncio.to_thread(llm.health))["in_flight"]:
            assert not beginning.done()
            await asyncio.sleep(0.02)
        beginning.cancel()
    assert await asyncio.to_thread(llm.becomes_idle)
    assert await asyncio.to_thread(llm.metric_reaches, "callbox_aborted_steps_total", aborted + 1)
    assert await asyncio.to_thread(llm.metric_reaches, "callbox_cancel_to_stop_seconds_count", timed + 1)


async def test_over_capacity_the_answer_is_busy_and_the_others_are_unharmed(session: aiohttp.ClientSession) -> None:
    body = {"messages": STORY, "max_tokens": 1000, "stream": True, **ENDLESS}
    async with (
        session.post("/v1/chat/completions", json=body) as one,
        session.post("/v1/chat/completions", json=body) as two,
    ):
        await first_text(one)
        await first_text(two)
        async with session.post("/v1/chat/completions", json={"messages": QUESTION}) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            assert "try again" in error_in(await response.text())
        await first_text(one)
        one.close()
        two.close()


async def test_a_call_keeps_its_prompt_cache_and_a_newer_lease_ends_the_older_answer(
    session: aiohttp.ClientSession, llm: WorkerProcess, redis_url: str
) -> None:
    async def lease(registry: Registry, call: str) -> tuple[int, dict[str, str]]:
        granted = await registry.acquire(call, ["llm"], 15_000, 8)
        assert granted.bundle is not None
        assert granted.fence is not None
        member = granted.bundle["llm"]
        headers = {wire.CALL_ID: call, wire.SLOT: str(member.slot), wire.FENCE: str(member.fence)}
        return granted.fence, {**headers, wire.BOOT: member.boot}

    async def cached(headers: dict[str, str], words: str) -> int:
        body = {"messages": [{"role": "user", "content": words}], "max_tokens": 1}
        async with session.post("/v1/chat/completions", json=body, headers=headers) as response:
            return int((await response.json())["usage"]["prompt_tokens_details"]["cached_tokens"])

    async with Redis.from_url(redis_url) as redis:
        registry = Registry(redis)
        one_fence, one = await lease(registry, "one")
        two_fence, two = await lease(registry, "two")
        first, second = "apples and pears and plums and figs", "red and green and blue and black and white"
        await cached(one, first)
        await cached(two, second)
        assert await cached(one, first) > 10
        assert await cached(two, second) > 10

        body = {"messages": STORY, "max_tokens": 1500, "stream": True, **ENDLESS}
        async with session.post("/v1/chat/completions", json=body, headers=one) as response:
            await first_text(response)
            await registry.release("one", one_fence)
            three_fence, three = await lease(registry, "three")
            await cached(three, "hello")
            last = [event async for event in events(response)][-1]
        assert isinstance(last, dict)
        assert "superseded" in last["error"]["message"]
        async with session.post("/v1/chat/completions", json={"messages": QUESTION}, headers=one) as response:
            assert response.status == 409
        await registry.release("two", two_fence)
        await registry.release("three", three_fence)
