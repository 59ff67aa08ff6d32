"""Committed answers before speculative ones, in a real worker whose slots share one engine."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from daemons import wire
from daemons.settings import Settings
from daemons.wire import Priority
from tests.llm.test_server import ENDLESS, QUESTION, STORY, error_in, events, first_text, session
from tests.worker_process import WorkerProcess

__all__ = ["session"]  # a fixture
pytestmark = pytest.mark.integration


@asynccontextmanager
async def story(session: aiohttp.ClientSession, priority: Priority) -> AsyncIterator[aiohttp.ClientResponse]:
    """An answer that would go on and on, and has begun."""
    body = {"messages": STORY, "max_tokens": 1500, "stream": True, **ENDLESS}
    async with session.post("/v1/chat/completions", json=body, headers={wire.PRIORITY: priority}) as response:
        await first_text(response)
        yield response
        response.close()


async def ask(session: aiohttp.ClientSession, priority: Priority = "committed") -> str:
    body = {"messages": QUESTION, "temperature": 0}
    async with session.post("/v1/chat/completions", json=body, headers={wire.PRIORITY: priority}) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return str(answer["choices"][0]["message"]["content"])


async def last_error(response: aiohttp.ClientResponse) -> str:
    last = [event async for event in events(response)][-1]
    assert isinstance(last, dict)
    return str(last["error"]["message"])


async def test_a_speculative_answer_is_dropped_for_committed_work_elsewhere(
    session: aiohttp.ClientSession, llm: WorkerProcess
) -> None:
    dropped = await asyncio.to_thread(llm.metric, "callbox_llm_speculative_stops_total")
    async with story(session, "speculative") as speculative:
        answer = asyncio.create_task(ask(session))
        assert "committed work" in await last_error(speculative)
        assert "Paris" in await answer
    assert await asyncio.to_thread(llm.metric_reaches, "callbox_llm_speculative_stops_total", dropped + 1)


async def test_committed_answers_leave_each_other_alone(session: aiohttp.ClientSession) -> None:
    async with story(session, "committed") as committed:
        assert "Paris" in await ask(session)
        await first_text(committed)


async def test_a_speculative_request_waits_until_committed_work_is_done(session: aiohttp.ClientSession) -> None:
    async with story(session, "committed"):
        guess = asyncio.create_task(ask(session, "speculative"))
        done, _ = await asyncio.wait([guess], timeout=1.0)
        assert not done
    assert "Paris" in await guess


async def test_where_all_places_are_taken_speculative_work_gives_up_its_own(session: aiohttp.ClientSession) -> None:
    async with story(session, "speculative") as one, story(session, "speculative") as two:
        assert "Paris" in await ask(session)
        assert "committed work" in await last_error(one)
        assert "committed work" in await last_error(two)
    async with story(session, "committed"), story(session, "committed"):
        body = {"messages": QUESTION}
        async with session.post("/v1/chat/completions", json=body, headers={wire.PRIORITY: "speculative"}) as response:
            assert response.status == 503


def test_the_engine_s_threads_stand_behind_the_worker_s_own_on_the_cores(llm: WorkerProcess) -> None:
    threads = [int(task.name) for task in Path(f"/proc/{llm.pid}/task").iterdir()]
    niceness = Counter(os.getpriority(os.PRIO_PROCESS, thread) for thread in threads)
    given, own = Settings(), os.getpriority(os.PRIO_PROCESS, llm.pid)
    assert own == os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness[own + given.llm_niceness] >= given.slots + given.direct_slots + given.llm_threads


async def test_an_unknown_priority_is_refused(session: aiohttp.ClientSession) -> None:
    headers = {wire.PRIORITY: "urgent"}
    async with session.post("/v1/chat/completions", json={"messages": QUESTION}, headers=headers) as response:
        assert response.status == 400
        assert "committed or speculative" in error_in(await response.text())
