"""Workers that can never start: each says why, and is not started again."""

import importlib.util
from pathlib import Path

import pytest

from daemons.errors import EXIT_DO_NOT_RESTART
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

QWEN3 = "hf:Qwen/Qwen3-TTS-12Hz-0.6B-CustomVoice"


def last_words(role: str, settings: dict[str, str], redis_url: str, folder: Path) -> str:
    """What a worker with `settings` writes before it ends as one that nothing but a person can help."""
    worker = WorkerProcess(role, redis_url, folder, **settings)
    process = worker.start()
    try:
        assert process.wait(30) == EXIT_DO_NOT_RESTART
    finally:
        process.kill()
        process.wait()
    return worker.log.read_text()


def test_without_its_model_the_llm_worker_says_how_to_have_it(redis_url: str, tmp_path: Path) -> None:
    said = last_words("llm", {"llm_model": "no-such-model"}, redis_url, tmp_path)
    assert "callbox models pull no-such-model" in said


def test_the_llm_worker_says_which_file_is_broken(redis_url: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"this is no model")
    assert "cannot load" in last_words("llm", {"llm_model": str(broken)}, redis_url, tmp_path)


def test_without_its_model_the_tts_worker_says_how_to_have_it(redis_url: str, tmp_path: Path) -> None:
    settings = {"tts_engine": "qwen3", "tts_model": QWEN3, "models_dir": str(tmp_path)}
    assert f"run `callbox models pull {QWEN3}`" in last_words("tts", settings, redis_url, tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")
@pytest.mark.parametrize(
    ("role", "settings"),
    [
        ("llm", {"llm_engine": "transformers", "llm_model": "smollm2-135m"}),
        ("tts", {"tts_engine": "qwen3", "tts_model": "/tmp"}),
    ],
)
def test_without_torch_an_engine_on_torch_says_what_to_install(
    role: str, settings: dict[str, str], redis_url: str, tmp_path: Path
) -> None:
    assert "CALLBOX_PROFILE=gpu" in last_words(role, settings, redis_url, tmp_path)
