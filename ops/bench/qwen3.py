"""`callbox bench tts --engine qwen3`: the engine's own bench, which runs where nothing of the house is installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from daemons.errors import ConfigurationError
from daemons.settings import ROOT

MODULE = "daemons.tts.engines.qwen3.bench"


def run(size: str, quantization: str, json_file: Path | None) -> int:
    """Its exit code. Raises ConfigurationError where torch is missing."""
    if find_spec("torch") is None:
        raise ConfigurationError(
            "the engine qwen3 needs the extra `torch`: run post_start.sh with CALLBOX_PROFILE=gpu, "
            f"or run `python -m {MODULE}` where torch, numpy and safetensors are installed"
        )
    words = ["--size", size, "--quantization", quantization]
    words += [] if json_file is None else ["--json", str(json_file)]
    return subprocess.run([sys.executable, "-m", MODULE, *words], cwd=ROOT, check=False).returncode
