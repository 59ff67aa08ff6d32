"""`callbox models` as a person runs it: a chat model of a hub, one setting away."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI

from daemons import settings as settings_module
from daemons.settings import ROOT
from ops import models
from ops.kept import read
from tests.ops.conftest import MakeSettings
from tests.ops.hub import Hub
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration


def callbox(var_dir: Path, *words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    own = {"CALLBOX_VAR_DIR": str(var_dir), "COLUMNS": "200", **more}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CALLBOX_", "HF_"))}
    command = (sys.executable, "-c", "from ops.cli import run; run()", *words)
    return subprocess.run(command, env=clean | own, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_a_gguf_of_the_hub_answers_in_a_real_chat_and_there_is_a_way_back(
    make_settings: MakeSettings, var_dir: Path, redis_url: str, tmp_path: Path
) -> None:
    ours = settings_module.load().models_dir / "smollm2-135m" / models.catalogue()["smollm2-135m"].files[0].name
    name = f"hf:acme/SmolLM2-GGUF/{ours.name}"
    with Hub(repositories={"acme/SmolLM2-GGUF": {ours.name: ours.read_bytes()}}, cut_after=(30_000_000,)) as hub:
        settings = make_settings(hub_url=hub.url)
        said = callbox(var_dir, "models", "use", name)
        assert said.returncode == 0, said.stderr
        assert hub.ranges == [None, "bytes=30000000-"]
    assert "licence apache-2.0" in said.stdout
    assert f"CALLBOX_LLM_MODEL: qwen2.5-coder-0.5b → {name}" in said.stdout
    assert "Next: callbox up" in said.stdout
    assert "CALLBOX_LLM_MODEL=qwen2.5-coder-0.5b callbox up" in said.stdout

    listed = callbox(var_dir, "models", "list").stdout
    [line] = [line for line in listed.splitlines() if line.startswith(name)]
    assert line.split()[-2:] == ["yes", "yes"]

    kept = read(var_dir / "callbox.env")["CALLBOX_LLM_MODEL"]
    assert kept == name
    with WorkerProcess(
        "llm", redis_url, tmp_path, llm_model=kept, models_dir=settings.models_dir, llm_context_tokens=1024
    ) as worker:
        client = OpenAI(base_url=f"{worker.url}/v1", api_key="-", max_retries=0, timeout=60)
        with client:
            answer = client.chat.completions.create(
                model="", messages=[{"role": "user", "content": "What is the capital of France?"}], temperature=0
            )
    assert "Paris" in (answer.choices[0].message.content or "")

    file = models.catalogue()["qwen2.5-coder-0.5b"].files[0].name
    there = settings.models_dir / "qwen2.5-coder-0.5b"
    there.mkdir()
    (there / file).write_bytes(b"GGUF")
    back = callbox(var_dir, "models", "use", "qwen2.5-coder-0.5b")
    assert f"CALLBOX_LLM_MODEL: {name} → qwen2.5-coder-0.5b" in back.stdout


def test_what_cannot_be_used_leaves_the_settings_as_they_are(make_settings: MakeSettings, var_dir: Path) -> None:
    with Hub(repositories={"acme/page": {"m.gguf": b"<html>"}}) as hub:
        make_settings(hub_url=hub.url)
        before = (var_dir / "callbox.env").read_text()
        refused = callbox(var_dir, "models", "use", "hf:acme/page/m.gguf")
    gone = callbox(var_dir, "models", "use", "hf:acme/other")
    assert "no GGUF file" in refused.stderr
    assert "is this machine online" in gone.stderr
    assert (refused.returncode, gone.returncode) == (78, 1)
    assert (var_dir / "callbox.env").read_text() == before
