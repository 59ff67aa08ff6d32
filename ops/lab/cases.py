"""The lab's cases, as data: what callers say, over what, in which noise, and what should come of it."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ops.lab import live

_FILE = Path(__file__).with_name("cases.toml")

Name = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
Seconds = Annotated[float, Field(gt=0, le=60)]
Suite = Literal["ci", "fast", "nightly"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sound(Strict):
    """A recording out of a package that is fetched when it is first wanted, or a noise that is made."""

    what: str
    licence: str
    archive: str = ""  # of ops/bench/pauses.toml, which has its checksum
    member: str = ""
    from_s: Annotated[float, Field(ge=0)] = 0.0
    to_s: Seconds | None = None  # its end where not given
    made: Literal["", "cough"] = ""

    @model_validator(mode="after")
    def _is_had_in_one_way(self) -> "Sound":
        if bool(self.made) == bool(self.archive) or bool(self.archive) != bool(self.member):
            raise ValueError(f"{self.what}: an archive and its member, or how it is made")
        return self


class Played(Strict):
    sound: str


Say = Annotated[tuple[str | Seconds | Played, ...], Field(min_length=1)]
"""Words in the caller's voice, silences in s, and sounds, one after another."""


class Over(Strict):
    """What is said over an answer, so long after its first sound; `yields`: the answer must end for it."""

    at_s: Seconds
    say: Say
    yields: bool
    has: tuple[str, ...] = ()


class Line(Strict):
    """Said once all that came before it was heard out. `has`: words of which the answer must hold one.

    `quiet_s`: after the answer the caller says nothing for so long, and must not be spoken to.
    """

    say: Say
    has: tuple[str, ...] = ()
    over: Over | None = None
    quiet_s: Seconds | None = None


class Case(Strict):
    """One call, or several of the same at once."""

    name: Name
    suites: tuple[Suite, ...]
    priority: Literal["P0", "P1"] = "P0"
    voice: Literal["own", "deep"] = "own"  # the box's, and the same of a larger person
    level_dbfs: Annotated[float, Field(ge=-60, le=-6)] | None = None  # of the caller's speech; as it is when not given
    noise_snr_db: Annotated[float, Field(ge=0, le=60)] | None = None
    calls: Annotated[int, Field(ge=1, le=8)] = 1
    max_sentences: Annotated[int, Field(ge=1)] | None = None  # of an answer, where the persona's own will not do
    fault: str | None = None  # that is put into what is said to the caller, and must be found
    lines: Annotated[tuple[Line, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_a_fault_that_is_known(self) -> "Case":
        if self.fault is not None and self.fault not in live.FAULTS:
            raise ValueError(f"no live fault is called {self.fault}; there are {', '.join(live.FAULTS)}")
        return self


class Cases(Strict):
    sound: dict[Name, Sound]
    case: tuple[Case, ...]

    @model_validator(mode="after")
    def _are_whole(self) -> "Cases":
        names = [case.name for case in self.case]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two cases are called {', '.join(sorted(twice))}")
        played = {piece.sound for case in self.case for piece in pieces(case) if isinstance(piece, Played)}
        if unknown := played - self.sound.keys():
            raise ValueError(f"there is no sound called {', '.join(sorted(unknown))}")
        return self

    def named(self, name: str) -> Case:
        return next(case for case in self.case if case.name == name)

    def of(self, suite: Suite) -> list[Case]:
        return [case for case in self.case if suite in case.suites]


def pieces(case: Case) -> list[str | float | Played]:
    """All that its callers say."""
    said = [line.say for line in case.lines] + [line.over.say for line in case.lines if line.over is not None]
    return [piece for one in said for piece in one]


@cache
def cases() -> Cases:
    """Raises ValueError for a file that is not as it must be."""
    return parsed(_FILE.read_text(encoding="utf-8"))


def parsed(toml: str) -> Cases:
    return Cases.model_validate(tomllib.loads(toml))
