"""Which model a role shall use: what must change for it, and keeping that."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemons import settings as settings_module
from daemons.errors import ConfigurationError
from daemons.models import HUB, is_on_hub, is_path, model_folder
from daemons.settings import PREFIX, Settings
from ops import fit, kept, models
from ops.fit import Fit
from ops.programs import daemons

_RUN_BY: dict[str, tuple[str, ...]] = {"vad": ("stt", "agent"), "turn": ("agent",)}  # other roles are programs


@dataclass(frozen=True)
class Choice:
    """A model, as settings name it, for a role. `changes`: settings before and after, none when it is so already.

    `programs`: those of this box that run it then.
    """

    name: str
    role: str
    changes: dict[str, tuple[str, str]]
    programs: tuple[str, ...]

    @property
    def way_back(self) -> str:
        return " ".join(f"{setting}={before}" for setting, (before, _) in self.changes.items()) + " callbox up"


def choose(settings: Settings, what: str) -> Choice:
    """Have the model `what` here, and say what must be set for it.

    `what` is a name in etc/models.toml, hf:OWNER/REPOSITORY[/FILE], or the path of a file or folder.
    Raises ConfigurationError when no engine here runs it, Unavailable when it cannot be fetched.
    """
    name = _as_setting(what)
    if is_path(name):
        place = Path(name)
        fits = fit.fit_of(name, [place.name] if place.is_file() else _files_in(place))
    else:
        models.pull(settings, [name], models.catalogue())
        model = models.known(settings)[name]
        fits = Fit(model.role, tuple(model.engines), tuple(file.name for file in model.files))
        place = model_folder(settings, name)
    fit.check_content(place, fits)
    wanted = {f"{fits.role}_model": name} | _engine(settings, fits)
    changes = {
        PREFIX + setting.upper(): (str(getattr(settings, setting)), value)
        for setting, value in wanted.items()
        if getattr(settings, setting) != value
    }
    here = daemons(settings.model_copy(update=wanted))
    return Choice(name, fits.role, changes, tuple(one for one in _RUN_BY.get(fits.role, (fits.role,)) if one in here))


def keep(settings: Settings, choice: Choice) -> None:
    """Write the changes where later runs find them. Raises ConfigurationError where that would change nothing."""
    given: dict[str, Any] = settings_module.given()
    if stronger := [setting for setting in choice.changes if given.get(setting)]:
        said = ", ".join(f"{setting}={given[setting]}" for setting in stronger)
        raise ConfigurationError(f"the environment sets {said}, which is stronger than what is kept: unset it first")
    kept.keep(settings.var_dir, {setting: after for setting, (_, after) in choice.changes.items()})


def _as_setting(what: str) -> str:
    if is_on_hub(what) or what in models.catalogue():
        return what
    place = Path(what).expanduser()
    if place.exists():
        return str(place.resolve())
    there = ", ".join(models.catalogue())
    raise ConfigurationError(f"{what} is no model of etc/models.toml ({there}), no {HUB}OWNER/REPOSITORY, and no path")


def _files_in(folder: Path) -> list[str]:
    files = (*folder.iterdir(), *folder.glob(f"{fit.SPEECH_TOKENIZER}/*"))
    return [str(file.relative_to(folder)) for file in files if file.is_file()]


def _engine(settings: Settings, fits: Fit) -> dict[str, str]:
    """The engine that is set, where it runs these files; their usual one otherwise."""
    if not fits.engines:
        return {}
    now = getattr(settings, f"{fits.role}_engine")
    engine = now if now in fits.engines else fits.engines[0]
    fit.check_engine(engine)
    return {f"{fits.role}_engine": engine}
