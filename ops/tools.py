"""Build tools from PyPI, in an environment of their own under the user's cache, so that `.venv` stays what runs."""

import shutil
import sys
from pathlib import Path

from daemons.settings import ROOT, Settings
from ops.run import run


def bin_dir(settings: Settings) -> Path:
    return settings.cache_dir / "tools/bin"


def install(settings: Settings, requirement: str) -> None:
    """Install `NAME==VERSION`. Raises StepFailed."""
    _pip(settings, f"install {requirement}", "install", "--only-binary", ":all:", requirement)


def remove(settings: Settings, name: str) -> None:
    _pip(settings, f"remove {name}", "uninstall", "--yes", name)


def _pip(settings: Settings, what: str, *arguments: str) -> None:
    python = bin_dir(settings) / "python"
    if not python.exists():
        shutil.rmtree(python.parent.parent, ignore_errors=True)  # its interpreter was upgraded away
        make = (sys.executable, "-m", "venv", "--without-pip", python.parent.parent)
        run("make the tools' environment", make, log=settings.var_dir / "log/tools.log", cwd=ROOT)
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--no-cache-dir")
    run(what, (*pip, *arguments), log=settings.var_dir / "log/tools.log", cwd=ROOT)
