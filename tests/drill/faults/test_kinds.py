"""What a fault tells the oracle of itself."""

import signal
from pathlib import Path
from random import Random

from ops.drill.faults import kinds
from ops.drill.faults.forks import Forks
from ops.drill.faults.proxy import Proxy
from ops.drill.faults.world import DEFAULT, Party, World


async def test_a_stop_is_over_before_who_was_stopped_can_do_anything(tmp_path: Path) -> None:
    world = World("world1", tmp_path, Forks(), DEFAULT)
    over_at: dict[signal.Signals, bool] = {}

    class Watched(Party):
        def signal(self, signum: signal.Signals) -> None:
            over_at[signum] = world.oracle.troubles[-1].ended_ns is not None

    world.parties.append(Watched("agent1", "agent", Proxy(0), port=1))
    kind = next(kind for kind in kinds.KINDS if kind.name == "SIGSTOP, short")
    await kind.strike(world, Random(1))
    assert over_at == {signal.SIGSTOP: False, signal.SIGCONT: True}
