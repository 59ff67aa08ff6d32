"""One client: seeded operations against the registry and its model, and what happens to a server now and then."""

import random
from collections.abc import Callable

from daemons.errors import Unavailable
from ops.drill.registry.clients import Fault, Op, Traffic
from ops.drill.registry.invariants import Broken
from ops.drill.registry.sides import BlockingRedis, Diverged, SideBySide
from ops.drill.registry.story import Story
from ops.drill.registry.tally import Tally

LOOK_EVERY = 20  # operations; their answers are compared each time
FAULTS = {Fault.LOSE_DATA: 0.4, Fault.FORGET_SCRIPTS: 0.1, Fault.CHANGE_SERVER: 0.1, Fault.PASS_A_DAY: 0.05}


def fuzz(redis: BlockingRedis, ops: int, seed: int, tally: Tally, on_done: Callable[[int], None]) -> None:
    """Empty the Redis and do `ops` operations. Raises Failed at the first one that is not as it should be."""
    traffic = Traffic(random.Random(seed), FAULTS)  # noqa: S311 - to be repeated by its seed
    sides, story = SideBySide(redis), Story()
    for number in range(1, ops + 1):
        op = traffic.next()
        sides.now_ms += traffic.gap_ms()
        story.ask(number, sides.now_ms, op)
        try:
            answer = _do(sides, traffic, op)
            story.answered(answer)
            if number % LOOK_EVERY == 0:
                sides.look()
        except (Diverged, Broken, Unavailable) as error:
            raise story.failed(error) from error
        traffic.learn(op, answer)
        tally.count(op, answer)
        on_done(1)


def _do(sides: SideBySide, traffic: Traffic, op: Op) -> object:
    match op.name:
        case Fault.LOSE_DATA:
            sides.lose_data(traffic.clients.seen_fences)
        case Fault.FORGET_SCRIPTS:
            sides.forget_scripts()
        case Fault.CHANGE_SERVER:
            sides.change_server()
        case Fault.PASS_A_DAY:
            sides.pass_a_day()
        case _:
            return sides.do(op)
    return None
