from collections.abc import Iterator

import pytest

from tests.worker_process import WorkerProcess


@pytest.fixture(scope="package")
def stt(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with WorkerProcess("stt", redis_url, tmp_path_factory.mktemp("stt")) as worker:
        yield worker
