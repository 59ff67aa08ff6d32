"""One call, from its lease to its last word: who may speak in it, for how long, and why it ends.

Every task of a call belongs to its task group; when the call ends, for whatever reason, nothing of it is left.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp

from daemons import wire
from daemons.agent import persona
from daemons.agent.conversation import Conversation, Listener
from daemons.agent.hearing import Hearing
from daemons.agent.idle import Idle
from daemons.agent.metrics import Metrics
from daemons.agent.peers import Peers
from daemons.agent.room import CallRoom
from daemons.audio import FloatSamples, Samples
from daemons.clock import Clock
from daemons.errors import CallboxError, LeaseLost, Unavailable
from daemons.media import Rooms
from daemons.registry import Holder, Lease, Registry
from daemons.settings import Settings
from daemons.trace import Trace

log = logging.getLogger(__name__)

TICK_S = 0.1
JOIN_S = 20.0
HANG_UP_S = 1.0  # a page that gives its lease back leaves the room in the same breath
LEAVE_GRACE_S = 10.0  # a page that is being reloaded comes back

_LAST_WORDS: dict[wire.EndReason, str] = {
    "caller_left": "You hung up.",
    "caller_absent": "The call ended because you were not there.",
    "idle": "The call ended because nobody spoke for a while.",
    "longest_call": "The call reached its longest allowed time.",
    "agent_stopping": "The service is being restarted. Please call again in a minute.",
    "registry_lost": "The service lost track of this call. Please call again.",
    "worker_lost": "A part of the service stopped and could not be replaced in time. Please call again.",
    "media_lost": "The connection to the media server was lost. Please call again.",
    "failed": "Something went wrong in the service; its log says more. Please call again.",
}


class _Over(Exception):
    """Leaves the task group of a call that has ended."""


class Call:
    def __init__(
        self,
        *,
        settings: Settings,
        registry: Registry,
        rooms: Rooms,
        session: aiohttp.ClientSession,
        vad: Callable[[FloatSamples], float],
        listener: Listener | None,
        clock: Clock,
        lease: Lease,
        phrases: dict[str, Samples],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._name = lease.call
        self._persona = persona.load(settings.persona)
        self._room = CallRoom(settings, rooms, lease.call)
        self._holder = Holder(registry, lease, clock)
        self._peers = Peers(session, self._holder, settings.replace_s)
        self._trace = Trace(settings.var_dir / "traces" / f"{lease.call}.jsonl", clock, self._room.tell_trace)
        self._conversation = Conversation(
            persona=self._persona,
            llm_model=settings.llm_model,
            omni=settings.llm_omni,
            workers=self._peers,
            hearing=Hearing(vad, clock),
            listener=listener,
            page=self._room,
            emit=self._trace.emit,
            clock=clock,
            phrases=phrases,
            spawn=self._spawn,
            give_up=self._give_up,
            metrics=metrics,
        )
        self._over: asyncio.Future[wire.EndReason] = asyncio.get_running_loop().create_future()
        self._tasks = asyncio.TaskGroup()
        self._greeted = False
        self._present = False
        self._linked = True  # the media server is there
        self._absent_until_ns = self._in_s(JOIN_S)
        self._idle = Idle(settings.idle_s, clock.now_ns() / 1e9)
        self._lease_gone_ns: int | None = None

    async def run(self) -> wire.EndReason:
        """Hold the call until it ends. Never raises but when cancelled."""
        reason: wire.EndReason = "failed"
        try:
            async with self._tasks:
                reason = await self._live()
                raise _Over
        except* _Over:
            pass
        except* CallboxError as group:
            log.error("%s: %s", self._name, group.exceptions[0])
        except* Exception:
            log.exception("%s failed", self._name)
        finally:
            await self._close(reason)
        return reason

    def end(self, reason: wire.EndReason) -> None:
        """The call ends now, for this reason; the first one counts."""
        if not self._over.done():
            self._over.set_result(reason)

    def lease_is_missing(self) -> None:
        """The registry does not list the lease: the caller hung up, or it was lost, or the registry lost its data."""
        self._holder.look_again()

    # Its life

    async def _live(self) -> wire.EndReason:
        self._trace.emit("call_started", call=self._name, fence=self._holder.fence)
        self._spawn(self._keep_lease())
        await self._room.open(
            on_audio=self._conversation.hear,
            on_audible=self._on_audible,
            on_caller=self._on_caller,
            on_text=self._conversation.read,
            on_link=self._on_link,
            on_lost=self._on_room_lost,
        )
        self._spawn(self._conversation.run())
        self._spawn(self._watch())
        return await self._over

    async def _close(self, reason: wire.EndReason) -> None:
        log.info("%s ended: %s", self._name, reason)
        self._conversation.end()
        self._trace.emit("call_ended", reason=reason)
        await self._room.close(wire.CallEnded(reason=reason, message=_LAST_WORDS[reason]))
        await self._peers.close()
        try:
            await self._holder.release()
        except Unavailable as error:
            log.warning("%s: its lease is left to expire: %s", self._name, error)
        self._trace.close()

    async def _keep_lease(self) -> None:
        try:
            await self._holder.keep()
        except LeaseLost as error:
            log.info("%s: %s", self._name, error)
            self._lease_gone_ns = self._clock.now_ns()

    async def _watch(self) -> None:
        """The call's limits, and silence where no audio comes."""
        longest_ns = self._in_s(self._settings.call_max_s)
        while True:
            await self._clock.sleep(TICK_S)
            now_ns = self._clock.now_ns()
            self._conversation.tick()
            if self._lease_gone_ns is not None:
                if not self._present:
                    self.end("caller_left")
                elif now_ns - self._lease_gone_ns > HANG_UP_S * 1e9:
                    self.end("registry_lost")
            elif not (self._present and self._linked) and now_ns > self._absent_until_ns:
                self.end("media_lost" if not self._linked else "caller_left" if self._greeted else "caller_absent")
            elif now_ns > longest_ns:
                self.end("longest_call")
            else:
                self._be_idle(now_ns / 1e9)

    def _be_idle(self, now_s: float) -> None:
        quiet = self._conversation.quiet and self._present and self._greeted
        match self._idle.look(now_s, quiet=quiet, turns=self._conversation.turns):
            case "ask":
                self._conversation.announce(self._persona.phrases.still_there)
            case "goodbye":
                self._conversation.announce(self._persona.phrases.goodbye)
            case "end":
                self.end("idle")

    def _in_s(self, seconds: float) -> int:
        return self._clock.now_ns() + round(seconds * 1e9)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(work)

    # What happens in the room

    def _on_audible(self) -> None:
        if not self._greeted:
            self._greeted = True
            self._conversation.announce(self._persona.greeting)

    def _on_caller(self, present: bool, on_purpose: bool) -> None:
        self._present = present
        if self._linked:
            self._absent_until_ns = self._in_s(LEAVE_GRACE_S if on_purpose else self._settings.absent_s)
        self._trace.emit("caller_joined" if present else "caller_left", on_purpose=on_purpose)

    def _on_link(self, up: bool) -> None:
        self._linked = up
        self._absent_until_ns = self._in_s(self._settings.absent_s)
        self._trace.emit("media_server_back" if up else "media_server_away")

    def _on_room_lost(self, why: str) -> None:
        if not self._over.done():
            log.warning("%s: the room is gone: %s", self._name, why)
            self.end("media_lost")

    def _give_up(self, why: str) -> None:
        log.error("%s: %s", self._name, why)
        self.end("worker_lost")
