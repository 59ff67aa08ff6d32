"""The lab's cases, as data."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ops.lab import live

_FILE = Path(__file__).with_name("cases.toml")


class Case(BaseModel):
    """One call: what the caller says, one after another, each once the answer to the last was heard out."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    say: Annotated[tuple[str, ...], Field(min_length=1)]
    has: tuple[tuple[str, ...], ...] = ()
    fault: str | None = None
    """That is put into what is said to the caller, and must be found."""

    @model_validator(mode="after")
    def _makes_sense(self) -> "Case":
        if self.has and len(self.has) != len(self.say):
            raise ValueError(f"case {self.name}: `has` has {len(self.has)} entries for {len(self.say)} turns")
        if self.fault is not None and self.fault not in live.FAULTS:
            raise ValueError(f"case {self.name}: no live fault is called {self.fault}")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    case: tuple[Case, ...]


@cache
def cases() -> dict[str, Case]:
    """By name. Raises ValueError for a file that is not as it must be."""
    found = _File.model_validate(tomllib.loads(_FILE.read_text(encoding="utf-8"))).case
    by_name = {case.name: case for case in found}
    if len(by_name) < len(found):
        raise ValueError(f"{_FILE.name} has two cases of one name")
    return by_name
