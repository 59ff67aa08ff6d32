"""The `openai` package, which people's programs already use, drives the chat door."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.llm.conftest import SMALL_MODEL
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the capital of France?"}]
STORY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Write a very long story about a dragon."}]
ENDLESS = {"repeat_penalty": 1.0}


@pytest.fixture
async def client(llm: WorkerProcess, all_places_free: None) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{llm.url}/v1", api_key="none is needed", max_retries=0, timeout=60) as client:
        yield client


async def test_it_finds_the_model(client: AsyncOpenAI) -> None:
    models = await client.models.list()
    assert [model.id for model in models.data] == [SMALL_MODEL]


async def test_it_gets_a_whole_answer(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="gpt-4o", messages=QUESTION, temperature=0, max_tokens=100, seed=-1, top_p=0.9, stop=["\n\n"]
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 3
    assert answer.usage.prompt_tokens_details is not None


async def test_it_gets_a_stream_with_its_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="", messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    text, reasons, usages, pieces = "", [], [], 0
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            pieces += bool(choice.delta.content)
            reasons += [choice.finish_reason] if choice.finish_reason else []
        usages += [chunk.usage] if chunk.usage else []
    assert "Paris" in text
    assert pieces > 3
    assert reasons == ["stop"]
    assert [usage.total_tokens > pieces for usage in usages] == [True]


async def test_its_streaming_helper_understands_every_event(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="", messages=QUESTION, temperature=0) as stream:
        kinds = {event.type async for event in stream}
        whole = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "Paris" in (whole.choices[0].message.content or "")


async def test_a_bad_request_is_its_bad_request_in_a_sentence(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="n: Input should be") as caught:
        await client.chat.completions.create(model="", messages=QUESTION, n=2)
    assert caught.value.type == "invalid_request_error"
    audio: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}
    ]
    with pytest.raises(openai.BadRequestError, match="takes text; input_audio is none of it"):
        await client.chat.completions.create(model="", messages=audio)


async def test_a_full_worker_is_its_server_error_and_says_when_to_come_back(client: AsyncOpenAI) -> None:
    streams = [
        await client.chat.completions.create(
            model="", messages=STORY, stream=True, max_tokens=1500, temperature=0, extra_body=ENDLESS
        )
        for _ in range(2)
    ]
    with pytest.raises(openai.InternalServerError, match="try again") as caught:
        await client.chat.completions.create(model="", messages=QUESTION)
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["Retry-After"]) > 0
    for stream in streams:
        await stream.close()


async def test_a_stream_that_is_closed_stops_the_work(client: AsyncOpenAI, llm: WorkerProcess) -> None:
    assert await asyncio.to_thread(llm.becomes_idle)
    aborted = await asyncio.to_thread(llm.metric, "callbox_aborted_steps_total")
    stream = await client.chat.completions.create(
        model="", messages=STORY, stream=True, max_tokens=1500, temperature=0, extra_body=ENDLESS
    )
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    assert (await asyncio.to_thread(llm.health))["in_flight"] == 1
    await stream.close()
    assert await asyncio.to_thread(llm.becomes_idle)
    assert await asyncio.to_thread(llm.metric_reaches, "callbox_aborted_steps_total", aborted + 1)
