"""Stands for the command `vllm serve` of vLLM 0.30.0, which needs a card: takes its command line and environment, loads
for a moment, and answers as the tests' own upstream does. Its engine is another process, which outlives a SIGKILL.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from daemons.settings import ROOT
from tests.llm.upstream_server import UpstreamServer

LOAD_S = 0.5
ENGINE = "import time; time.sleep(600)"


def install(place: Path) -> Path:
    """The command at `place`."""
    place.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m {__name__} "$@"\n')
    place.chmod(0o755)
    return place


def parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("what", choices=["serve"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--enable-prompt-tokens-details", action="store_true")
    parser.add_argument("--disable-uvicorn-access-log", action="store_true")
    for number in ("tensor-parallel-size", "max-model-len", "max-num-seqs", "init-timeout", "stage-init-timeout"):
        parser.add_argument(f"--{number}", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--omni", action="store_true")
    parser.add_argument("--deploy-config", type=Path)
    return parser.parse_args(words)


def main(words: list[str]) -> None:
    given = parsed(words)
    (given.model / "config.json").read_text()
    if given.omni:
        deploy = yaml.safe_load(given.deploy_config.read_text())
        cards = len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))
        assert deploy["stages"][0]["tensor_parallel_size"] == cards
    assert given.host == "127.0.0.1"
    with subprocess.Popen([sys.executable, "-c", ENGINE]) as engine:
        asyncio.run(serve(given.port, given.served_model_name))
        engine.kill()


async def serve(port: int, name: str) -> None:
    """Until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await asyncio.sleep(LOAD_S)
    async with UpstreamServer(key=os.environ["VLLM_API_KEY"], port=port, model=name):
        await stopped.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
