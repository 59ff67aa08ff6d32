"""What a run was made with: so that two runs that sound different can be told apart by more than their sound."""

import platform
import re
import subprocess
from importlib.metadata import version
from typing import Any

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from daemons.models import is_path
from daemons.settings import ROOT, Settings
from ops import livekit, models
from ops.figures import machine

PACKAGES = ("livekit", "onnxruntime", "xllamacpp", "numpy", "scipy", "soxr", "hibari-tts")
_PLACES = ("_port", "_dir", "persona")  # each box of a run has others, and they change no sound


def versions(settings: Settings) -> dict[str, Any]:
    """Of the box that was dialled."""
    return {
        "callbox": version("callbox"),
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "livekit-server": None if (server := livekit.find(settings)) is None else livekit.version(server),
        "models": _models(settings),
        "settings": _changed(settings),
        "machine": machine(),
    }


def _commit() -> str | None:
    """With "-dirty" where files differ from it; None where there is no clone, or no git."""
    if not (ROOT / ".git").exists():
        return None
    asked = ("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() or None


def _models(settings: Settings) -> dict[str, dict[str, Any]]:
    """By the settings that name them; a path is the operator's own affair, and has no checksums."""
    known = models.known(settings)
    return {
        setting: {
            "name": name,
            "sha256": {file.name: file.sha256 or f"git blob {file.git_blob}" for file in known[name].files}
            if name in known and not is_path(name)
            else {},
        }
        for setting, name in models.used(settings).items()
    }


def _changed(settings: Settings) -> dict[str, Any]:
    """What differs from the defaults; no secrets, and of addresses no passwords."""
    changed = {}
    for name, field in Settings.model_fields.items():
        value, default = getattr(settings, name), field.get_default(call_default_factory=True)
        if value == default or default is PydanticUndefined or isinstance(value, SecretStr) or name.endswith(_PLACES):
            continue
        is_plain = isinstance(value, (int, float, bool))
        changed[name] = value if is_plain else re.sub(r"//[^/]*@", "//", str(value))
    return changed
