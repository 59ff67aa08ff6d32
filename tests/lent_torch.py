"""Torch for the house's own programs, lent from the environment of the tests of Qwen3-TTS."""

import subprocess
import sysconfig
from pathlib import Path

import pytest

from daemons.settings import ROOT

ORACLE = ROOT / ".oracle"
WITHIN_S = 110.0

needs_torch = pytest.mark.skipif(not (ORACLE / "installed").exists(), reason="tests/run installs torch")


def run_with_torch(*words: str | Path) -> None:
    """Run Python with `words`. Raises CalledProcessError."""
    subprocess.run([ORACLE / "bin/python", *words], cwd=ROOT, check=True, timeout=WITHIN_S)


def lend_torch(folder: Path) -> Path:
    """Fill `folder` with links to what the house lacks, for PYTHONPATH: what it has is not replaced."""
    [packages] = (ORACLE / "lib").glob("python3*/site-packages")
    own = Path(sysconfig.get_path("purelib"))
    folder.mkdir()
    for package in packages.iterdir():
        if not (own / package.name).exists():
            (folder / package.name).symlink_to(package)
    return folder
