"""What an agent asks of the chat workers: a hint costs nobody anything, an answer comes from whoever can give it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import aiohttp
import pytest
from redis.asyncio import Redis

from daemons.admission import MAX_REQUESTS_PER_SLOT, Claim
from daemons.agent.peers import Peers
from daemons.clock import SystemClock
from daemons.errors import Unavailable
from daemons.registry import Holder, Lease, Registry
from tests.llm.conftest import SMALL_MODEL
from tests.llm.test_server import ENDLESS, QUESTION, STORY, first_text
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

ASKED = {"messages": QUESTION, "temperature": 0, "max_tokens": 20}
ENDLESS_STORY = {"messages": STORY, "max_tokens": 1500, "stream": True, **ENDLESS}
REPLACE_S = 20.0
SOON_S = 5.0  # less than speculative work would wait


class Called:
    """A call that holds one of two chat workers, and the clients beside it."""

    def __init__(self, holder: Holder, session: aiohttp.ClientSession, workers: dict[str, WorkerProcess]) -> None:
        self.holder = holder
        self.member = holder.bundle["llm"]
        self.worker = workers[self.member.worker]
        self.peers = Peers(session, holder, REPLACE_S)
        self.claim = Claim(holder.call, self.member.slot, self.member.fence, self.member.boot).headers()
        self._session = session

    def story(self, headers: dict[str, str]) -> "aiohttp.client._RequestContextManager":
        """An answer without an end."""
        return self._session.post(f"{self.member.addr}/v1/chat/completions", json=ENDLESS_STORY, headers=headers)

    async def hear_story(self) -> None:
        async with self.story(self.claim) as response:
            await response.read()

    async def answer(self) -> str:
        return "".join([piece async for piece in self.peers.chat(ASKED, "committed")])


@pytest.fixture(scope="module")
def workers(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, WorkerProcess]]:
    """Two for chat, by the names under which the registry knows them. One of them does not survive the last test."""
    with ExitStack() as running:
        started = [
            WorkerProcess("llm", redis_url, tmp_path_factory.mktemp("llm"), llm_model=SMALL_MODEL, slots=1)
            for _ in range(2)
        ]
        yield {f"127.0.0.1:{worker.port}": running.enter_context(worker) for worker in started}


@pytest.fixture
async def called(redis_url: str, workers: dict[str, WorkerProcess]) -> AsyncIterator[Called]:
    async with Redis.from_url(redis_url) as redis, aiohttp.ClientSession() as session:
        registry = Registry(redis)
        granted = await registry.acquire("call-1", ["llm"])
        assert granted.fence is not None
        assert granted.bundle is not None
        holder = Holder(registry, Lease(0, "call-1", granted.fence, granted.bundle, 0), SystemClock())
        yield Called(holder, session, workers)
        await holder.release()


async def test_reading_ahead_waits_for_others_answers(called: Called) -> None:
    async with called.story({}) as story:
        await first_text(story)
        reading = asyncio.create_task(called.peers.read_ahead(ASKED))
        done, _ = await asyncio.wait([reading], timeout=1.0)
        assert not done
        assert "Paris" in await called.answer(), "an answer does not wait"
    await asyncio.wait_for(reading, 30)


@pytest.mark.parametrize("kept", [True, False])
async def test_an_answer_that_is_kept_goes_on_beside_others_answers(called: Called, kept: bool) -> None:
    story = called.peers.chat({**ENDLESS_STORY, "max_tokens": 100}, "speculative")
    words = await anext(story)
    if kept:
        await called.peers.keep_answer()
    async with called.story({}) as other:
        await first_text(other)
        try:
            words += "".join([piece async for piece in story])
            told = "all"
        except Unavailable as error:
            told = str(error)
    assert ("committed work" in told) is not kept
    assert (len(words.split()) > 30) is kept


async def test_a_worker_is_replaced_for_an_answer_and_never_for_a_hint(called: Called) -> None:
    before = await asyncio.to_thread(called.worker.metric, "callbox_requests_total")
    stories = [asyncio.create_task(called.hear_story()) for _ in range(MAX_REQUESTS_PER_SLOT)]
    assert await asyncio.to_thread(called.worker.metric_reaches, "callbox_requests_total", before + len(stories))
    await asyncio.wait_for(called.peers.read_ahead(ASKED), SOON_S)
    assert await asyncio.to_thread(called.worker.metric_reaches, "callbox_refusals_total", 1), "it was full"
    assert called.holder.bundle["llm"] == called.member
    for story in stories:
        story.cancel()
    await asyncio.gather(*stories, return_exceptions=True)

    os.kill(called.worker.pid, signal.SIGKILL)
    await asyncio.wait_for(called.peers.read_ahead(ASKED), SOON_S)
    assert called.holder.bundle["llm"] == called.member
    assert "Paris" in await called.answer()
    assert called.holder.bundle["llm"].worker != called.member.worker
