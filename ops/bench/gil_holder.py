"""A worker whose model holds the GIL: `python -m ops.bench.gil_holder SECONDS`.

Two answer for its health, from the same block: a child process, as every daemon has, and a thread of this process. It
says on which ports; then each line on stdin makes it hold the GIL once, and it says for how long it did.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from threading import Thread

from daemons.health import Block, serve
from daemons.settings import ROOT

CALIBRATION = 5_000_000
BEAT_S = 0.5


def main(hold_s: float) -> None:
    block = Block()
    block.publish({"role": "bench"}, b"")
    block.set_phase("ready")
    sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("child", "thread")}
    fds = (block.fd, sockets["child"].fileno())
    command = (sys.executable, "-m", "daemons.health", *map(str, fds), str(os.getpid()))
    Thread(target=serve, args=(block, sockets["thread"]), daemon=True).start()
    Thread(target=beat, args=(block,), daemon=True).start()
    items = round(CALIBRATION * hold_s / (hold_gil(CALIBRATION) / 1000))
    with subprocess.Popen(command, pass_fds=fds, cwd=ROOT) as child:
        say({name: listening.getsockname()[1] for name, listening in sockets.items()})
        for _ in sys.stdin:
            say({"held_ms": hold_gil(items)})
        child.kill()


def beat(block: Block) -> None:
    while True:
        block.beat()
        time.sleep(BEAT_S)


def hold_gil(items: int) -> float:
    """One call into C that runs no bytecode, so that nobody else gets the GIL before its end; how long it took, in ms.

    Its time grows with `items` in a straight line.
    """
    began_s = time.perf_counter()
    sum(itertools.repeat(1, items))
    return (time.perf_counter() - began_s) * 1000


def say(facts: dict[str, int] | dict[str, float]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
