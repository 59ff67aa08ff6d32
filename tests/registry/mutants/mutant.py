"""A rule that is broken on purpose."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Test = Callable[..., Awaitable[None]]


@dataclass(frozen=True)
class Mutant:
    """`old` stands exactly once in the script. Every test of `caught_by` fails when `new` stands there instead."""

    name: str
    script: str
    old: str
    new: str
    caught_by: tuple[Test, ...]
