"""A whole box by its GPU profile, on a machine without a card: nvidia-smi and vllm are stand-ins, and hibari speaks."""

import os
import signal
import stat
import time
from collections.abc import Iterator
from typing import Any

import openai
import psutil
import pytest

from ops.free_ports import free_port
from ops.private_box import PrivateBox
from tests.llm import vllm_program
from tests.llm.upstream_server import WORDS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HEAL_S = 30.0


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBox]:
    folder = tmp_path_factory.mktemp("gpu")
    smi = folder / "nvidia-smi"
    smi.write_text('#!/bin/sh\necho "0, NVIDIA L40S, 46068, 3"\n')
    smi.chmod(0o755)
    model = folder / "Omni-7B"
    model.mkdir()
    (model / "config.json").write_text("{}")
    box = PrivateBox(
        profile="gpu",
        slots=1,
        tts_engine="hibari",
        vllm_bin=vllm_program.install(folder / "vllm"),
        vllm_model=model,
        vllm_port=free_port(),
    )
    box.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
    box.environment["CUDA_VISIBLE_DEVICES"] = "7"  # of the shell: must not count
    with box:
        yield box


def chat(box: PrivateBox) -> str | None:
    with openai.OpenAI(api_key="-", base_url=f"http://127.0.0.1:{box.settings.llm_port}/v1", max_retries=0) as client:
        question: Any = [{"role": "user", "content": "What is the capital of France?"}]
        return client.chat.completions.create(model="-", messages=question).choices[0].message.content


def programs(box: PrivateBox) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in box.status()["programs"]}


def test_the_box_answers_by_its_vllm(box: PrivateBox) -> None:
    assert chat(box) == "".join(WORDS)
    there = programs(box)
    assert all(each["ready"] for each in there.values())
    assert "stt" not in there
    assert there["vllm"]["model"] == there["llm"]["model"] == "Omni-7B"
    findings = box.callbox("doctor", "--quick").stdout
    assert "card 0 (NVIDIA L40S, 46068 MiB): vllm 27641 MiB" in findings
    assert "vllm: ready" in findings


def test_its_key_is_a_secret_and_its_door_is_loopbacks(box: PrivateBox) -> None:
    process = psutil.Process(box.pid("vllm"))
    key = box.settings.vllm_api_key.get_secret_value()
    environment = process.environ()
    assert environment["VLLM_API_KEY"] == key
    assert environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in psutil.Process(box.pid("tts")).environ()
    commands = [word for each in psutil.process_iter(["cmdline"]) for word in each.info["cmdline"] or []]
    assert not any(key in word for word in commands)
    for path in box.var_dir.rglob("*"):
        if path.is_file() and key in path.read_text(errors="replace"):
            assert path.name in ("secrets.env", "supervisord.conf"), path
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listens = {(each.laddr.ip, each.laddr.port) for each in process.net_connections() if each.status == "LISTEN"}
    assert listens == {("127.0.0.1", box.settings.vllm_port)}


def test_a_killed_vllm_comes_back_and_its_engine_does_not_keep_the_card(box: PrivateBox) -> None:
    pid, llm = box.pid("vllm"), box.pid("llm")
    (engine,) = psutil.Process(pid).children()
    os.kill(pid, signal.SIGKILL)
    box.wait_ready("vllm", other_than=pid)
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE
    assert "which a killed server had left" in box.log("vllm")
    box.wait_ready("llm", other_than=0)
    assert box.pid("llm") == llm, "it waits"
    assert chat(box) == "".join(WORDS)


def test_its_absence_is_said(box: PrivateBox) -> None:
    box.supervisorctl("stop", "vllm")
    try:
        deadline = time.monotonic() + HEAL_S
        while (there := programs(box))["llm"]["ready"]:
            assert time.monotonic() < deadline
        assert there["llm"]["why_not"] == "its upstream does not answer"
        assert (there["vllm"]["state"], there["vllm"]["why_not"]) == ("STOPPED", "nobody listens")
        findings = box.callbox("doctor", "--quick", check=False)
        assert findings.returncode == 1
        assert "WRONG vllm: STOPPED" in findings.stdout
    finally:
        box.supervisorctl("start", "vllm")
    box.wait_ready("llm", other_than=0)


def test_more_than_the_card_has_is_refused_before_anything_changes(box: PrivateBox) -> None:
    pid = box.pid("vllm")
    before = (box.var_dir / "callbox.env").read_text()
    box.environment["CALLBOX_VLLM_GPU_MEMORY_UTILIZATION"] = "1.0"
    try:
        refused = box.callbox("up", check=False)
    finally:
        del box.environment["CALLBOX_VLLM_GPU_MEMORY_UTILIZATION"]
        (box.var_dir / "callbox.env").write_text(before)
    assert refused.returncode == 78
    words = " ".join(refused.stderr.split())
    assert "card 0 (NVIDIA L40S, 46068 MiB): vllm 46068 MiB, 500 MiB in reserve: 500 MiB too many" in words
    assert "lower CALLBOX_VLLM_GPU_MEMORY_UTILIZATION to 0.98 or less" in words
    assert box.pid("vllm") == pid
