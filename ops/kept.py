"""What outlives the shell that said it: settings in var/callbox.env, secrets in var/secrets.env."""

import contextlib
import difflib
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from daemons import settings as settings_module
from daemons.errors import ConfigurationError
from daemons.settings import PREFIX, Settings
from ops.progress import console

SECRETS = tuple(f"{PREFIX}{name}" for name in ("LIVEKIT_API_SECRET", "OPERATOR_KEY", "TOKEN_SECRET", "VLLM_API_KEY"))
NOT_KEPT = (f"{PREFIX}VAR_DIR",)  # it says where the kept ones lie


def known() -> set[str]:
    """The name of every setting, as the environment spells it."""
    return {PREFIX + name.upper() for name in Settings.model_fields}


def unknown(names: Mapping[str, str]) -> list[str]:
    """A sentence for each CALLBOX_* variable that no setting answers to."""
    sentences = []
    for name in sorted(set(names) - known()):
        near = difflib.get_close_matches(name, known(), n=1)
        sentences.append(f"{name} is no setting" + (f"; {near[0]} is" if near else ""))
    return sentences


def keep(var_dir: Path, given: Mapping[str, str]) -> Settings:
    """Keep the given settings for later runs, and load all; an empty value forgets one.

    Raises ConfigurationError, and then keeps what it had.
    """
    path = var_dir / "callbox.env"
    before = read(path)
    new = {name: value for name, value in given.items() if name in known() and name not in NOT_KEPT}
    after = {name: value for name, value in (before | new).items() if value}
    if after == before:
        return settings_module.load()
    write_private(path, _as_text(after))
    try:
        settings = settings_module.load()
    except ConfigurationError:
        write_private(path, _as_text(before))
        raise
    for name in sorted(name for name in new if name not in after):
        console.print(f"forgotten: {name}")
    console.print(f"settings kept in {path}: {', '.join(sorted(after)) or 'none'}")
    return settings


def make_secrets(var_dir: Path) -> None:
    """Make the secrets that are missing; those that are there stay, since tokens are signed with them."""
    path = var_dir / "secrets.env"
    there = read(path)
    made = {name: secrets.token_urlsafe(36) for name in SECRETS if not there.get(name)}
    if made:
        write_private(path, _as_text(there | made))


def read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value}


def write_private(path: Path, text: str) -> None:
    """Write so that nobody else can read it, and nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    new.touch(mode=0o600)
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def _as_text(values: Mapping[str, str]) -> str:
    return "".join(f"{name}={_quoted(name, value)}\n" for name, value in sorted(values.items()))


def _quoted(name: str, value: str) -> str:
    if re.search(r"[\n\r]|\$\{", value):
        raise ConfigurationError(f"{name}: a value with a line break or ${{ cannot be kept")
    if re.fullmatch(r"[\w./:@%+,=~-]+", value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
