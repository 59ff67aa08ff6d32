"""Speech workers that are broken on purpose: `python -m tests.drill.disconnects.broken KIND`."""

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from aiohttp import web

from daemons.admission import Admission, Work
from daemons.audio import FloatSamples
from daemons.runtime import main
from daemons.tts import server
from daemons.tts.engine import Phrase
from daemons.tts.engines.hibari import Hibari

SLOW_S = 0.1


def keeps_places() -> None:
    """A request that did not come to a good end keeps its place."""
    enter = Admission._enter_direct

    def enter_for_good(self: Admission) -> tuple[Work, Callable[[], None]]:
        work, leave = enter(self)

        def leave_when_well() -> None:
            if sys.exc_info()[0] is None:
                leave()

        return work, leave_when_well

    Admission._enter_direct = enter_for_good  # type: ignore[method-assign]


def works_on() -> None:
    """It does not look whether its client is still there; and it is slow enough for that to show."""

    @asynccontextmanager
    async def whether_or_not_connected(_: web.Request) -> AsyncIterator[None]:
        yield

    server.__dict__["while_connected"] = whether_or_not_connected
    synthesize = Hibari.synthesize

    def slowly(self: Hibari, phrase: Phrase, *, seed: int, speed: float) -> Iterator[FloatSamples]:
        time.sleep(SLOW_S)
        return synthesize(self, phrase, seed=seed, speed=speed)

    Hibari.synthesize = slowly  # type: ignore[method-assign]


if __name__ == "__main__":
    {"keeps-places": keeps_places, "works-on": works_on}[sys.argv[1]]()
    main(server.TtsService)
