"""What stands in the way of the box."""

from collections.abc import Iterator

from daemons.ports import listeners
from daemons.settings import PREFIX, Settings
from ops.programs import Program


def taken(settings: Settings, programs: tuple[Program, ...], ours: set[int]) -> Iterator[str]:
    """A sentence for each port that the programs need and a process that is none of ours holds."""
    held = {(listener.kind, listener.port): listener for listener in listeners() if listener.pid not in ours}
    for program in programs:
        for kind, setting, offset in program.ports:
            port = getattr(settings, setting) + offset
            if listener := held.get((kind, port)):
                yield (
                    f"port {port}/{kind}, which {program.name} needs, is held by {listener.holder}; "
                    f"end that, or move {program.name} with {PREFIX}{setting.upper()}"
                )
