"""The soak from its first call to its report."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ops.bench.soak.calls import CYCLE, Kind, Lines, Outcome, call
from ops.bench.soak.looks import Look, Watch
from ops.private_box import PrivateBox

IDLE_S = 4.0  # so that who never speaks is told goodbye soon


@dataclass(slots=True)
class Taken:
    """After each call: what came of it, what was left of it, and a look at the box."""

    outcomes: list[Outcome] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)


async def take(calls: int, *, llm_model: str, on_call: Callable[[int], None]) -> Taken:
    """`calls` calls one after another to a box of its own. Raises StepFailed, and what `soak` raises."""
    with PrivateBox(slots=1, idle_s=IDLE_S, llm_model=llm_model) as box:
        box.write_persona(max_sentences=1)
        return await soak(box, list(itertools.islice(itertools.cycle(CYCLE), calls)), on_call)


async def soak(box: PrivateBox, kinds: Sequence[Kind], on_call: Callable[[int], None]) -> Taken:
    """A call of each kind, in their order. Raises psutil.NoSuchProcess when a program of the box ends."""
    taken = Taken()
    lines = await Lines.of(box)
    async with Watch.on(box.settings) as watch:
        for number, kind in enumerate(kinds, 1):
            taken.outcomes.append(await call(box.settings.door_url, kind, lines))
            taken.left.append(await watch.until_over(number))
            taken.looks.append(await watch.look())
            on_call(1)
    return taken
