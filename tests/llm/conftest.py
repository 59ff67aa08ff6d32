from collections.abc import Iterator

import pytest

from tests.worker_process import WorkerProcess

SMALL_MODEL = "smollm2-135m"


@pytest.fixture(scope="package")
def llm(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    folder = tmp_path_factory.mktemp("llm")
    with WorkerProcess("llm", redis_url, folder, llm_model=SMALL_MODEL, llm_context_tokens=2048) as worker:
        yield worker
