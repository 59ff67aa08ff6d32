"""The audio that a speech worker gave once and was found good, kept to compare later audio with; never in git."""

import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemons.audio import TTS_RATE_HZ, Pcm, Samples, read_wav, wav_bytes
from ops.figures import machine, write_json
from ops.run import StepFailed

_PACKAGES = ("callbox", "hibari-tts", "onnxruntime", "numpy", "scipy", "soxr")


@dataclass(frozen=True, slots=True)
class Golden:
    made: dict[str, Any]
    audio: dict[str, Samples]


def save(folder: Path, audio: Mapping[str, Samples], engine: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.wav"):
        old.unlink()
    for name, samples in audio.items():
        (folder / f"{name}.wav").write_bytes(wav_bytes(Pcm(samples, TTS_RATE_HZ)))
    made_at = time.strftime("%Y-%m-%d %H:%M:%S %z")
    write_json(folder / "made.json", {"at": made_at, "machine": machine(), "engine": engine, "versions": versions()})


def load(folder: Path, engine: str) -> Golden | None:
    """None when there is none. Raises StepFailed when it is another engine's."""
    try:
        made = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if made["engine"] != engine:
        raise StepFailed(
            f"the golden audio in {folder} is {made['engine']}'s, not {engine}'s; --set-golden replaces it"
        )
    return Golden(made, {path.stem: read_wav(path).samples for path in sorted(folder.glob("*.wav"))})


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
