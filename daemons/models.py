"""Where a model's files lie; `callbox models pull` puts them there."""

from pathlib import Path

from daemons.errors import ConfigurationError
from daemons.settings import Settings


def model_dir(settings: Settings, name: str) -> Path:
    """The folder of the model that a setting names; a path (anything with a slash) is used as it is.

    Raises ConfigurationError when it is not there.
    """
    folder = Path(name).expanduser() if "/" in name else settings.models_dir / name
    if not folder.exists():
        mend = "correct the setting" if "/" in name else f"run `callbox models pull {name}`"
        raise ConfigurationError(f"model {name}: {folder} is missing; {mend}")
    return folder
