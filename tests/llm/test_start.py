import importlib.util
from pathlib import Path

import pytest

from daemons.errors import EXIT_DO_NOT_RESTART
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("model", "reason"), [("no-such-model", "callbox models pull no-such-model"), ("/broken.gguf", "cannot load")]
)
def test_without_its_model_the_worker_says_so_and_is_not_restarted(
    model: str, reason: str, redis_url: str, tmp_path: Path
) -> None:
    if model.startswith("/"):
        model = f"{tmp_path}{model}"
        Path(model).write_bytes(b"this is no model")
    worker = WorkerProcess("llm", redis_url, tmp_path, llm_model=model)
    process = worker.start()
    try:
        assert process.wait(30) == EXIT_DO_NOT_RESTART
    finally:
        process.kill()
        process.wait()
    assert reason in worker.log.read_text()


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")
def test_without_torch_the_engine_on_torch_says_what_to_install(redis_url: str, tmp_path: Path) -> None:
    worker = WorkerProcess("llm", redis_url, tmp_path, llm_engine="transformers", llm_model="smollm2-135m")
    process = worker.start()
    try:
        assert process.wait(30) == EXIT_DO_NOT_RESTART
    finally:
        process.kill()
        process.wait()
    assert "CALLBOX_PROFILE=gpu" in worker.log.read_text()
