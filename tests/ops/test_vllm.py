"""The program vllm: its command line, and what a killed one leaves. The command itself is a stand-in of the tests."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from daemons.errors import EXIT_DO_NOT_RESTART
from daemons.settings import ROOT, Settings
from ops import models, vllm
from ops.programs import STOP_ORDER, programs
from ops.render import render
from tests.llm import vllm_program
from tests.ops.conftest import MakeSettings
from tests.waiting import until

LIVEKIT = Path("/usr/bin/env")  # any program: these tests only render its name
CHAT = {"llm_engine": "openai", "vllm_devices": "1,3", "vllm_model": "hf:acme/chat", "slots": 3, "direct_slots": 1}
HEARS = CHAT | {"vllm_pipeline": "qwen2_5_omni_thinker_only", "load_timeout_s": 900}
LEAVES = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.stdin.read()"

Run = Callable[..., "subprocess.Popen[str]"]


def words_after_python(settings: Settings) -> list[str]:
    """What supervisord runs, without Python and our own module."""
    program = next(program for program in programs(settings) if program.name == vllm.NAME)
    assert program.command[:3] == (sys.executable, "-m", "ops.vllm")
    return [*program.command[3:]]


@pytest.fixture
def run(var_dir: Path) -> Iterator[Run]:
    """`python -m ops.vllm` with a group of its own, as supervisord starts it; whatever it leaves is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        command = [sys.executable, "-m", "ops.vllm", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        started.append(
            subprocess.Popen(
                command, cwd=var_dir, env=environment, process_group=0, stdin=pipe, stdout=pipe, stderr=pipe, text=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# Where it runs


def test_it_runs_where_it_has_cards_and_the_chat_worker_asks_it(make_settings: MakeSettings) -> None:
    for changes, runs in (
        ({}, True),
        ({"vllm_devices": ""}, False),
        ({"llm_engine": "llamacpp"}, False),
        ({"llm_upstream_url": "http://elsewhere:8000/v1"}, False),
    ):
        settings = make_settings(**CHAT | changes)
        names = [program.name for program in programs(settings)]
        assert ("vllm" in names) is runs
        assert ("hf:acme/chat" in models.needed(settings)) is runs
        assert ("vllm_port" in dict(settings.ports())) is runs
        if runs:
            assert names.index("vllm") < names.index("llm"), "it takes minutes to load"
    assert STOP_ORDER.index("llm") < STOP_ORDER.index("vllm"), "an answer that is being written may end"


def test_supervisord_reads_it_and_its_key_is_in_no_command_line(make_settings: MakeSettings) -> None:
    settings = make_settings(**HEARS)
    render(settings, LIVEKIT)
    conf = (settings.var_dir / "etc/supervisord.conf").read_text()
    section = conf.partition("[program:vllm]")[2].partition("[program:")[0]
    key = settings.vllm_api_key.get_secret_value()
    lines = dict(line.split("=", 1) for line in section.splitlines() if "=" in line)
    assert len(key) > 40
    assert key not in lines["command"]
    known = dict(each.split("=", 1) for each in lines["environment"].replace('"1,3"', "1;3").split(","))
    assert known["VLLM_API_KEY"] == key
    assert (known["CUDA_VISIBLE_DEVICES"], known["CUDA_DEVICE_ORDER"]) == ("1;3", "PCI_BUS_ID")
    assert (known["HF_HUB_OFFLINE"], known["VLLM_NO_USAGE_STATS"], known["DO_NOT_TRACK"]) == ("1", "1", "1")
    assert known["VLLM_HOST_IP"] == "127.0.0.1"
    assert lines["stopwaitsecs"] == "30"
    assert section.partition("priority=")[2].split()[0] < conf.partition("[program:llm]")[2].partition("priority=")[2]
    tts = conf.partition("[program:tts]")[2].partition("[program:")[0]
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in tts


def test_a_changed_share_restarts_it(make_settings: MakeSettings) -> None:
    prints = []
    for share in (0.6, 0.6, 0.5):
        settings = make_settings(**HEARS, vllm_gpu_memory_utilization=share)
        render(settings, LIVEKIT)
        conf = (settings.var_dir / "etc/supervisord.conf").read_text().partition("[program:vllm]")[2]
        prints.append(conf.partition("CONFIG_FINGERPRINT=")[2].split(",")[0])
    assert prints[0] == prints[1] != prints[2]


# What it is told


def test_vllm_itself_is_told_its_share_and_the_places_on_its_command_line(make_settings: MakeSettings) -> None:
    settings = make_settings(**CHAT, vllm_port=12345)
    given = vllm_program.parsed(words_after_python(settings)[1:])
    assert given.model == settings.models_dir / "hf/acme--chat"
    assert (given.served_model_name, given.host, given.port) == ("acme/chat", "127.0.0.1", 12345)
    assert (given.tensor_parallel_size, given.gpu_memory_utilization) == (2, 0.6)
    assert (given.max_model_len, given.max_num_seqs) == (4096, 4)
    assert (given.omni, given.deploy_config) == (False, None)


def test_vllm_omni_is_told_to_run_the_stage_that_writes_alone(make_settings: MakeSettings) -> None:
    settings = make_settings(**HEARS, vllm_gpu_memory_utilization=0.55)
    given = vllm_program.parsed(words_after_python(settings)[1:])
    assert given.omni
    assert given.gpu_memory_utilization is None, "each stage has its own"
    assert (given.init_timeout, given.stage_init_timeout) == (900, 900)
    render(settings, LIVEKIT)
    deploy = yaml.safe_load(given.deploy_config.read_text())
    (stage,) = deploy["stages"]
    assert deploy["pipeline"] == "qwen2_5_omni_thinker_only"
    assert (stage["stage_id"], stage["devices"], stage["tensor_parallel_size"]) == (0, "0,1", 2)
    assert (stage["gpu_memory_utilization"], stage["max_model_len"], stage["max_num_seqs"]) == (0.55, 4096, 4)


def test_a_folder_is_served_under_its_name(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings(**CHAT | {"vllm_model": str(tmp_path / "Mine-8B")})
    given = vllm_program.parsed(words_after_python(settings)[1:])
    assert (given.model, given.served_model_name) == (tmp_path / "Mine-8B", "Mine-8B")


# What it leaves


async def test_what_a_killed_server_left_is_ended_by_the_next_and_nothing_else(run: Run) -> None:
    spared = int(line(run(sys.executable, "-c", LEAVES)))
    killed = run(sys.executable, "-c", LEAVES)  # whom the pid file names now
    orphan = int(line(killed))
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not gone(orphan), "this is what is to be mended"
    run("/usr/bin/sleep", "600")
    await until(lambda: gone(orphan), 10)
    assert not gone(spared)


async def test_a_server_that_runs_is_left_alone(run: Run) -> None:
    child = int(line(run(sys.executable, "-c", LEAVES)))
    second = run("/usr/bin/env", "true")
    assert second.wait(20) == 0
    assert not gone(child)


def test_it_finds_the_programs_of_its_own_environment(run: Run, tmp_path: Path) -> None:
    (tmp_path / "vllm").write_text("#!/bin/sh\nninja\n")
    (tmp_path / "ninja").write_text("#!/bin/sh\necho here\n")
    for name in ("vllm", "ninja"):
        (tmp_path / name).chmod(0o755)
    assert line(run(str(tmp_path / "vllm"))) == "here\n"


def test_one_that_is_not_there_is_not_tried_again(run: Run) -> None:
    began = time.monotonic()
    process = run("/no/such/vllm", "serve")
    assert process.wait(20) == EXIT_DO_NOT_RESTART
    assert time.monotonic() - began > 1, "supervisord heeds no sooner exit"
    assert process.stderr is not None
    assert process.stderr.read() == "/no/such/vllm: No such file or directory\n"
