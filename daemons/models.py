"""Where a model's files lie; `callbox models pull` puts them there."""

import re
from pathlib import Path
from typing import NamedTuple

from daemons.errors import ConfigurationError
from daemons.settings import Settings

HUB = "hf:"
NO_MODEL = "none"  # in place of a name, where the box does without
_PLACE = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w.-]+(?:/[\w.-]+)*))?", re.ASCII)


class HubPlace(NamedTuple):
    """A model on the hub: a repository, or one file of it."""

    repository: str
    revision: str = "main"
    file: str | None = None

    @classmethod
    def parse(cls, name: str) -> "HubPlace":
        """Of `hf:OWNER/REPOSITORY[@REVISION][/FILE]`. Raises ConfigurationError for anything else."""
        place = _PLACE.fullmatch(name.removeprefix(HUB))
        if not place or any(set(part) == {"."} for part in re.split(r"[/@]", name.removeprefix(HUB))):
            raise ConfigurationError(f"{name}: hf:OWNER/REPOSITORY[@REVISION][/FILE] is wanted")
        repository, revision, file = place.groups()
        return cls(repository, revision or "main", file)


def is_on_hub(name: str) -> bool:
    return name.startswith(HUB)


def is_path(name: str) -> bool:
    """Whether a setting names a file or folder of the operator's own, and no model that Callbox fetches."""
    return "/" in name and not is_on_hub(name)


def model_folder(settings: Settings, name: str) -> Path:
    """Where the files of a model that Callbox fetches lie, or will."""
    if not is_on_hub(name):
        return settings.models_dir / name
    HubPlace.parse(name)
    return settings.models_dir / "hf" / name.removeprefix(HUB).replace("/", "--")


def model_dir(settings: Settings, name: str) -> Path:
    """The folder of the model that a setting names, or its file where the name is a file's.

    A path (anything with a slash, and not on the hub) is used as it is. Raises ConfigurationError when it is not there.
    """
    place = Path(name).expanduser() if is_path(name) else model_folder(settings, name)
    if is_on_hub(name) and (file := HubPlace.parse(name).file):
        place /= file
    if not place.exists():
        mend = "correct the setting" if is_path(name) else f"run `callbox models pull {name}`"
        raise ConfigurationError(f"model {name}: {place} is missing; {mend}")
    return place
