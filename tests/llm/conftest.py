import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.worker_process import WorkerProcess

GONE_S = 0.3  # within which the worker notices that a client is gone that waits
SMALL_MODEL = "smollm2-135m"


@pytest.fixture(scope="package")
def llm(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    folder = tmp_path_factory.mktemp("llm")
    with WorkerProcess("llm", redis_url, folder, llm_model=SMALL_MODEL, llm_context_tokens=2048) as worker:
        yield worker


@pytest.fixture
async def all_places_free(llm: WorkerProcess) -> AsyncIterator[None]:
    """After the test: its clients are gone, and their requests have left."""
    yield
    assert await asyncio.to_thread(llm.becomes_idle)
    await asyncio.sleep(GONE_S)
