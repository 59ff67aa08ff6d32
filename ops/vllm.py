"""vLLM, or vLLM-Omni, as supervisord runs it: `python -m ops.vllm VLLM serve …`.

Written for vLLM and vLLM-Omni 0.30.0: what stands here about them is read from that version's documentation and source.

An engine whose server is killed with SIGKILL lives on and keeps its cards (vLLM's issue 55510), so that the next one
finds no memory. supervisord gives each program a process group of its own, in which the orphans are found.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil

from daemons.errors import EXIT_DO_NOT_RESTART, EXIT_NOTICED_S, ConfigurationError
from daemons.models import HUB, NO_MODEL, is_path, model_dir, model_folder
from daemons.settings import PREFIX, Settings

NAME = "vllm"
VERSION = "0.30.0"
STOP_WAIT_S = 30
ORPHANS_END_S = 10.0
PID_FILE = "vllm.pid"  # in the folder where it runs


def check(settings: Settings) -> None:
    """That there is what it runs. Raises ConfigurationError, which says how to have it."""
    if not settings.vllm_runs:
        return
    if shutil.which(_binary(settings)) is None:
        place = _binary(settings).parent.parent
        raise ConfigurationError(
            f"vllm is not installed at {_binary(settings)}; install it, in an environment of its own ("
            f"uv venv --python 3.12 {place} && uv pip install --python {place} --torch-backend=auto "
            f"vllm=={VERSION} vllm-omni=={VERSION}), or set {PREFIX}VLLM_BIN to where it is"
        )
    if is_path(settings.vllm_model):
        model_dir(settings, settings.vllm_model)


def served_name(settings: Settings) -> str:
    """What clients call its model."""
    return Path(settings.vllm_model).name if is_path(settings.vllm_model) else settings.vllm_model.removeprefix(HUB)


def command(settings: Settings, deploy_config: Path) -> tuple[str, ...]:
    """What is run; `deploy_config` is where `deploy_yml` lies."""
    name = settings.vllm_model
    model = Path(name).expanduser() if is_path(name) else model_folder(settings, name)
    words = [str(_binary(settings)), "serve", str(model)]
    words += ["--served-model-name", served_name(settings), "--host", "127.0.0.1", "--port", str(settings.vllm_port)]
    words += ["--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    if settings.vllm_pipeline != NO_MODEL:
        limit_s = f"{settings.load_timeout_s:.0f}"
        words += ["--omni", "--deploy-config", str(deploy_config)]
        return (*words, "--init-timeout", limit_s, "--stage-init-timeout", limit_s)
    words += ["--tensor-parallel-size", str(len(settings.vllm_cards))]
    words += ["--gpu-memory-utilization", f"{settings.vllm_gpu_memory_utilization:g}"]
    return (*words, "--max-model-len", str(settings.llm_context_tokens), "--max-num-seqs", str(_requests(settings)))


def deploy_yml(settings: Settings) -> str:
    """vLLM-Omni's: the stage that writes text, alone, since this box has a voice of its own.

    Its own configurations of Qwen's thinkers run eager, too. Devices are counted among those that it sees.
    """
    devices = ",".join(str(index) for index in range(len(settings.vllm_cards)))
    return f"""\
# Rendered by `callbox up`.
pipeline: {settings.vllm_pipeline}
distributed_executor_backend: mp
stages:
  - stage_id: 0
    devices: "{devices}"
    tensor_parallel_size: {len(settings.vllm_cards)}
    gpu_memory_utilization: {settings.vllm_gpu_memory_utilization:g}
    max_model_len: {settings.llm_context_tokens}
    max_num_seqs: {_requests(settings)}
    enforce_eager: true
"""


def environment(settings: Settings) -> dict[str, str]:
    """The key stands here alone: a command line is everybody's to read."""
    return {
        "VLLM_API_KEY": settings.vllm_api_key.get_secret_value(),
        "CUDA_VISIBLE_DEVICES": settings.vllm_devices,
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # nvidia-smi's; CUDA's own is by speed
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_ENGINE_READY_TIMEOUT_S": f"{settings.load_timeout_s:.0f}",
        "VLLM_LOGGING_COLOR": "0",
        "PYTHONUNBUFFERED": "1",
    }


def end_orphans(folder: Path) -> list[int]:
    """Kill what a dead server, named by its pid file in `folder`, has left; returns their process ids."""
    try:
        server = int((folder / PID_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return []
    if psutil.pid_exists(server):
        return []
    orphans = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getpgid(process.pid) == server and Path(process.cwd()) == folder:
                process.send_signal(signal.SIGKILL)
                orphans.append(process)
    psutil.wait_procs(orphans, ORPHANS_END_S)
    return [process.pid for process in orphans]


def main(words: list[str]) -> None:
    folder = Path.cwd()
    for pid in end_orphans(folder):
        sys.stderr.write(f"ended {pid}, which a killed server had left on its cards\n")
    (folder / PID_FILE).write_text(str(os.getpid()), encoding="ascii")
    os.environ["PATH"] = f"{Path(words[0]).parent}{os.pathsep}{os.environ['PATH']}"  # it looks for ninja there
    try:
        os.execv(words[0], words)  # noqa: S606 - the program that supervisord was told to run
    except OSError as error:
        sys.stderr.write(f"{words[0]}: {error.strerror}\n")
        time.sleep(EXIT_NOTICED_S)
        sys.exit(EXIT_DO_NOT_RESTART)


def _binary(settings: Settings) -> Path:
    """Of an environment of its own: vLLM pins its own torch."""
    return settings.vllm_bin or settings.cache_dir / "vllm/bin/vllm"


def _requests(settings: Settings) -> int:
    """As many as the LLM worker has places."""
    return settings.slots + settings.direct_slots


if __name__ == "__main__":
    main(sys.argv[1:])
