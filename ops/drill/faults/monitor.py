"""The real monitor, as a process of a world: without its probes, who was UNHEALTHY once would stay so."""

from typing import NoReturn

from daemons.monitor.server import Monitor
from daemons.runtime import main


def run() -> NoReturn:
    main(lambda runtime: Monitor(runtime.registry, runtime.metrics))
