"""A worker with the engine `openai`: in front of another Callbox worker, and of a server that comes and goes."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from daemons.errors import EXIT_DO_NOT_RESTART
from tests.llm import upstream_server as acts
from tests.llm.conftest import SMALL_MODEL
from tests.llm.test_server import ENDLESS, QUESTION, STORY, error_in, events, first_text
from tests.llm.upstream_server import MODEL, WORDS, UpstreamServer
from tests.waiting import until
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def relay(llm: WorkerProcess, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    """Its upstream is `llm`."""
    folder = tmp_path_factory.mktemp("relay")
    with WorkerProcess("llm", redis_url, folder, llm_engine="openai", llm_upstream_url=f"{llm.url}/v1") as worker:
        yield worker


@pytest.fixture
async def session(relay: WorkerProcess, all_places_free: None) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(relay.url, timeout=aiohttp.ClientTimeout(60)) as session:
        yield session


async def test_the_upstream_s_model_and_its_answer_come_through(session: aiohttp.ClientSession) -> None:
    async with session.get("/v1/models") as response:
        [model] = (await response.json())["data"]
    assert (model["id"], model["input_modalities"]) == (SMALL_MODEL, ["text"])
    body = {"messages": QUESTION, "temperature": 0, "stop": ["\n\n"], "seed": 1}
    async with session.post("/v1/chat/completions", json=body) as response:
        answer = await response.json()
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] > 10


async def test_what_the_upstream_refuses_is_refused_in_its_words(session: aiohttp.ClientSession) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 3000}]}
    async with session.post("/v1/chat/completions", json=body) as response:
        assert response.status == 400
        message = error_in(await response.text())
    assert message.startswith("the upstream refuses this: ")
    assert "context" in message


async def test_a_full_upstream_is_told_of_after_patience(session: aiohttp.ClientSession, llm: WorkerProcess) -> None:
    body = {"messages": STORY, "max_tokens": 1500, "stream": True, **ENDLESS}
    async with (
        aiohttp.ClientSession(llm.url) as direct,
        direct.post("/v1/chat/completions", json=body) as one,
        direct.post("/v1/chat/completions", json=body) as two,
    ):
        await first_text(one)
        await first_text(two)
        async with session.post("/v1/chat/completions", json={"messages": QUESTION}) as response:
            assert response.status == 503
            assert "places for requests without a call are taken" in error_in(await response.text())
        one.close()
        two.close()


async def test_a_client_that_goes_stops_the_work_at_the_upstream(
    session: aiohttp.ClientSession, llm: WorkerProcess, relay: WorkerProcess
) -> None:
    assert await asyncio.to_thread(llm.becomes_idle)
    body = {"messages": STORY, "max_tokens": 1500, "stream": True, **ENDLESS}
    async with session.post("/v1/chat/completions", json=body) as response:
        await first_text(response)
        assert (await asyncio.to_thread(llm.health))["in_flight"] == 1
        response.close()
    assert await asyncio.to_thread(relay.becomes_idle)
    assert await asyncio.to_thread(llm.becomes_idle)


async def test_it_is_ready_when_its_upstream_is(redis_url: str, tmp_path: Path) -> None:
    server = UpstreamServer(key="secret")
    worker = WorkerProcess(
        "llm",
        redis_url,
        tmp_path,
        llm_engine="openai",
        llm_upstream_url=server.url,
        llm_upstream_api_key="secret",
        llm_omni=True,
    )

    def says(status: int, words: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{worker.port + 1}/readyz", timeout=5) as answer:
                return (status, words) == (200, answer.read().decode().strip())
        except urllib.error.HTTPError as error:
            return (error.code, error.read().decode().strip()) == (status, words)
        except OSError:
            return False

    async def becomes(status: int, words: str) -> None:
        await until(lambda: asyncio.to_thread(says, status, words), within_s=40)

    await asyncio.to_thread(worker.start)
    try:
        await becomes(503, "loading")
        async with server:
            await becomes(200, "ok")
            async with aiohttp.ClientSession(worker.url) as session:
                await check_omni(session, server)
                server.acts.append(acts.hangs_up_in_the_middle)
                body = {"messages": QUESTION, "stream": True}
                async with session.post("/v1/chat/completions", json=body) as response:
                    *_, last = [event async for event in events(response)]
                assert isinstance(last, dict)
                assert "upstream" in last["error"]["message"]
        await becomes(503, "its upstream does not answer")
        async with UpstreamServer(port=server.port, key="secret"):
            await becomes(200, "ok")
    finally:
        await asyncio.to_thread(worker.end)
    assert "secret" not in worker.log.read_text()


async def check_omni(session: aiohttp.ClientSession, server: UpstreamServer) -> None:
    async with session.get("/v1/models") as response:
        [model] = (await response.json())["data"]
    assert (model["id"], model["input_modalities"]) == (MODEL, ["audio", "image", "text"])
    parts = [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "text", "text": "What is said here?"},
    ]
    async with session.post(
        "/v1/chat/completions", json={"messages": [{"role": "user", "content": parts}]}
    ) as response:
        answer = await response.json()
    assert answer["choices"][0]["message"]["content"] == "".join(WORDS)
    assert server.asked[-1]["messages"][0]["content"] == parts


async def test_a_wrong_key_is_a_bad_setting(redis_url: str, tmp_path: Path) -> None:
    async with UpstreamServer(key="right") as server:
        given = {"llm_upstream_url": server.url, "llm_upstream_api_key": "wrong"}
        worker = WorkerProcess("llm", redis_url, tmp_path, llm_engine="openai", **given)
        process = worker.start()
        try:
            assert await asyncio.to_thread(process.wait, 60) == EXIT_DO_NOT_RESTART
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
    assert "CALLBOX_LLM_UPSTREAM_API_KEY" in worker.log.read_text()
