from collections.abc import Iterator

import pytest

from tests.worker_process import WorkerProcess


@pytest.fixture(scope="package")
def tts(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with WorkerProcess("tts", redis_url, tmp_path_factory.mktemp("tts")) as worker:
        yield worker
