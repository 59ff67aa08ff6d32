"""Company for a caller who waits for an answer: a thinking sound, then short phrases, never plain silence."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from daemons.agent.playout import Playout
from daemons.agent.turn import Turn
from daemons.audio import Samples
from daemons.clock import Clock
from daemons.errors import Unavailable

log = logging.getLogger(__name__)

TICK_S = 0.1
HOLD_AFTER_S = 1.5
THINK_ALOUD_AFTER_S = 0.7  # longer than most answers take from the end of the turn
RENDER_EACH_S = 1.0


class Company:
    """`hold`: what is said while an answer takes long, one after the other.

    `rendered` keeps it for all calls: int16 [n] at 24 kHz, by its text. `render` speaks a text, and raises Unavailable;
    it is asked when `idle` says that nobody else wants the worker. `on_held` is told what was said.
    """

    def __init__(
        self,
        *,
        hold: Sequence[str],
        rendered: dict[str, Samples],
        render: Callable[[str], Awaitable[Samples]],
        idle: Callable[[], bool],
        turn: Turn,
        playout: Playout,
        clock: Clock,
        on_held: Callable[[str], None],
    ) -> None:
        self._hold = hold
        self._rendered = rendered
        self._render = render
        self._idle = idle
        self._turn = turn
        self._playout = playout
        self._clock = clock
        self._on_held = on_held

    async def keep(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._wait_with_the_caller())
            tasks.create_task(self._get_ready())

    async def _wait_with_the_caller(self) -> None:
        said, waited_s, owed_s = 0, 0.0, 0.0
        while True:
            await self._clock.sleep(TICK_S)
            if not self._turn.awaited:
                said = 0
            waited_s = waited_s + TICK_S if self._turn.awaited and self._playout.starving else 0.0
            owed_s = owed_s + TICK_S if self._turn.owed and self._playout.starving else 0.0
            self._playout.think(owed_s >= THINK_ALOUD_AFTER_S)
            text = self._hold[said % len(self._hold)]
            if waited_s >= HOLD_AFTER_S and (phrase := self._rendered.get(text)) is not None:
                self._on_held(text)
                self._playout.say_aside(phrase)
                said += 1

    async def _get_ready(self) -> None:
        """Ahead of need: when phrases are wanted, the speaking worker may be the one that is gone."""
        while missing := [text for text in self._hold if text not in self._rendered]:
            await self._clock.sleep(RENDER_EACH_S)
            if self._idle():
                try:
                    self._rendered[missing[0]] = await self._render(missing[0])
                except Unavailable as error:
                    log.info("%r is not rendered yet: %s", missing[0], error)
