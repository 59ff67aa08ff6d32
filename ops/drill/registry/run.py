"""A run of the drill: the server that it needs, and what it amounts to."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path

from ops.drill.registry.fuzz import fuzz
from ops.drill.registry.history import many
from ops.drill.registry.sides import BlockingRedis
from ops.drill.registry.story import Failed
from ops.drill.registry.tally import Tally
from ops.figures import Bound, Report
from ops.progress import count_bar
from ops.redis_server import RedisServer


def drill(ops: int, seed: int, clients: int) -> Report:
    """What went wrong is said at once."""
    started, tally, wrong = time.monotonic(), Tally(), 0
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        redis = BlockingRedis(server.port)
        redis.do("CONFIG", "SET", "appendonly", "no")  # the scripts are drilled here, not the disk
        try:
            with count_bar("operations", ops) as on_done:
                if clients == 1:
                    fuzz(redis, ops, seed, tally, on_done)
                else:
                    asyncio.run(many(server.url, clients, ops, seed, tally, on_done))
        except Failed as failed:
            wrong = 1
            again = "the same again" if clients == 1 else "something like it"
            command = f"callbox drill registry --ops {ops} --seed {seed} --clients {clients}"
            sys.stderr.write(f"{failed}\n\n{again}: {command}\n")  # stdout is for the report
        finally:
            redis.close()
    return _report(tally, ops, seed, clients, wrong, time.monotonic() - started)


def _report(tally: Tally, ops: int, seed: int, clients: int, wrong: int, lasted_s: float) -> Report:
    return Report(
        "The registry's scripts against their model",
        facts={"seed": seed, "clients": clients, "lasted_s": round(lasted_s, 1)},
        counts={
            "operations": tally.operations,
            "operations/s": tally.operations / lasted_s,
            **{f"{name}: {word}": count for name, word, count in tally.lines()},
            "answers that nobody got": len(tally.never),
        },
        bounds=[Bound("operations", tally.operations, ops, kind="at least"), Bound("divergences", wrong, 0)],
    )
