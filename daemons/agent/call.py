"""One call, from its lease to its last word: carries out what the turn machine decides.

Every task of a call belongs to its task group; when the call ends, for whatever reason, nothing of it is left.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, assert_never

import aiohttp
from prometheus_client import Histogram

from daemons import wire
from daemons.agent import persona, turn
from daemons.agent.hearing import Hearing
from daemons.agent.history import History
from daemons.agent.peers import Peers
from daemons.agent.playout import FRAME_SAMPLES, Playout
from daemons.agent.reply import Reply, as_written, first_sentences
from daemons.agent.room import CallRoom
from daemons.audio import FloatSamples
from daemons.clock import Clock
from daemons.errors import BadRequest, CallboxError, LeaseLost, Unavailable
from daemons.media import Rooms
from daemons.registry import Holder, Lease, Registry
from daemons.settings import Settings
from daemons.trace import Trace

log = logging.getLogger(__name__)

TICK_S = 0.1
JOIN_S = 20.0
HANG_UP_S = 1.0  # a page that gives its lease back leaves the room in the same breath
LEAVE_GRACE_S = 10.0  # a page that is being reloaded comes back

_AGENT_STATE: dict[turn.State, wire.AgentState] = {
    turn.State.LISTENING: "listening",
    turn.State.HEARING: "listening",
    turn.State.DECIDING: "thinking",
    turn.State.THINKING: "thinking",
    turn.State.SPEAKING: "speaking",
    turn.State.INTERRUPTED: "speaking",
    turn.State.ENDING: "listening",
}

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
        clock: Clock,
        lease: Lease,
        answered_s: Histogram,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._name = lease.call
        self._persona = persona.load(settings.persona)
        self._room = CallRoom(settings, rooms, lease.call)
        self._holder = Holder(registry, lease, clock)
        self._peers = Peers(session, self._holder)
        self._trace = Trace(settings.var_dir / "traces" / f"{lease.call}.jsonl", clock, self._room.tell_trace)
        self._hearing = Hearing(vad, clock)
        self._turn = turn.Turn(turn.Timing(endpoint_ms=settings.endpoint_ms))
        self._history = History(self._persona)
        self._playout = Playout(self._room, self._on_frame, self._on_voice_over)
        self._answered_s = answered_s
        self._unanswered: tuple[int, int] | None = None  # the turn to come, and when the caller's speech ended, in ns
        self._reply: Reply | None = None
        self._work: asyncio.Task[None] | None = None  # the transcription or the reply under way
        self._over: asyncio.Future[wire.EndReason] = asyncio.get_running_loop().create_future()
        self._tasks = asyncio.TaskGroup()
        self._reading: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # ahead, by `_prefill`
        self._state: wire.AgentState = "initializing"
        self._greeted = False
        self._present = False
        self._absent_until_ns = self._in_s(JOIN_S)
        self._active_ns = clock.now_ns()
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
            on_audio=self._on_audio,
            on_audible=self._on_audible,
            on_caller=self._on_caller,
            on_text=lambda text: self._feed(turn.Written(text)),
            on_lost=self._on_room_lost,
        )
        self._room.tell_state(self._state)
        self._spawn(self._playout.run())
        self._spawn(self._watch())
        self._prefill()
        return await self._over

    async def _close(self, reason: wire.EndReason) -> None:
        log.info("%s ended: %s", self._name, reason)
        self._feed(turn.Ended())
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
            for window in self._hearing.tick():
                self._feed(window)
            if self._turn.state is not turn.State.LISTENING or not self._present:
                self._active_ns = now_ns
            if self._lease_gone_ns is not None:
                if not self._present:
                    self.end("caller_left")
                elif now_ns - self._lease_gone_ns > HANG_UP_S * 1e9:
                    self.end("registry_lost")
            elif not self._present and now_ns > self._absent_until_ns:
                self.end("caller_left" if self._greeted else "caller_absent")
            elif now_ns > longest_ns:
                self.end("longest_call")
            elif now_ns - self._active_ns > self._settings.idle_s * 1e9:
                self.end("idle")

    def _in_s(self, seconds: float) -> int:
        return self._clock.now_ns() + round(seconds * 1e9)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(work)

    # What happens in the room

    def _on_audio(self, samples: Any) -> None:
        for window in self._hearing.push(samples):
            self._feed(window)

    def _on_audible(self) -> None:
        if not self._greeted:
            self._greeted = True
            self._feed(turn.Announced(self._persona.greeting))

    def _on_caller(self, present: bool, on_purpose: bool) -> None:
        self._present = present
        self._absent_until_ns = self._in_s(LEAVE_GRACE_S if on_purpose else self._settings.absent_s)
        self._trace.emit("caller_joined" if present else "caller_left", on_purpose=on_purpose)

    def _on_room_lost(self, why: str) -> None:
        if not self._over.done():
            log.warning("%s: the room is gone: %s", self._name, why)
            self.end("media_lost")

    def _on_frame(self, generation: int, played_samples: int) -> None:
        reply = self._reply
        if reply is None or reply.generation != generation:
            return
        if played_samples == FRAME_SAMPLES and self._turn.state is turn.State.THINKING:
            self._emit("first_frame_published", generation)
            if self._unanswered is not None and self._unanswered[0] == generation:
                self._answered_s.observe((self._clock.now_ns() - self._unanswered[1]) / 1e9)
            self._feed(turn.FirstFrame(generation))
        if (heard := reply.begun(played_samples)) is not None:
            self._room.caption(heard, segment=f"agent-{generation}", caller=False, final=False)

    def _on_voice_over(self, generation: int) -> None:
        reply, self._reply = self._reply, None
        if reply is not None and reply.generation == generation:
            self._emit("reply_finished", generation)
            self._remember(reply, heard=reply.text, known_as=reply.written.strip())
        self._feed(turn.ReplyOver(generation))

    # The turn machine and what it asks for

    def _feed(self, event: turn.Event) -> None:
        for action in self._turn.on(event):
            self._do(action)
        if (state := _AGENT_STATE[self._turn.state]) != self._state:
            self._state = state
            self._room.tell_state(state)

    def _do(self, action: turn.Action) -> None:
        match action:
            case turn.OpenUtterance(_, began_ms):
                self._hearing.open()
                self._emit("user_started", self._turn.generation + 1, at_ns=round(began_ms * 1e6))
            case turn.Transcribe():
                self._stop_work()
                self._work = self._spawn(self._transcribe(action))
            case turn.DropUtterance():
                self._hearing.drop()
            case turn.Think(generation, text, written):
                reply = Reply(generation, text, self._playout.start(generation), keep_caller=written)
                self._begin(reply, self._think(generation, self._chat_request(text)))
            case turn.Say(generation, text):
                reply = Reply(generation, "", self._playout.start(generation), keep_caller=False)
                self._begin(reply, as_written(text))
            case turn.Commit(generation):
                self._emit("eot_committed", generation)
                if self._reply is not None:
                    self._reply.voice.commit()
            case turn.Hold():
                self._playout.hold()
            case turn.Resume():
                self._playout.resume()
            case turn.Cancel(generation, barge_in):
                self._cancel(generation, barge_in)
            case _:
                assert_never(action)

    async def _transcribe(self, request: turn.Transcribe) -> None:
        generation = self._turn.generation + 1
        self._unanswered = generation, round(request.speech_ended_ms * 1e6)
        self._emit("user_stopped", generation, at_ns=self._unanswered[1])
        self._emit("stt_requested", generation)
        try:
            final = await self._peers.transcribe(self._hearing.utterance())
        except Unavailable as error:
            self._give_up(error)
            return
        self._emit("stt_final", generation, text=final.text, audio_ms=final.audio_ms, compute_ms=final.compute_ms)
        if final.text:
            self._room.caption(final.text, segment=f"caller-{request.utterance}", caller=True, final=True)
        self._feed(turn.Transcribed(request.take, final.text))

    def _chat_request(self, text: str) -> dict[str, Any]:
        writing = self._persona.writing
        return {
            "model": self._settings.llm_model,
            "messages": self._history.messages(text),
            "temperature": writing.temperature,
            "repeat_penalty": writing.repeat_penalty,
            "max_tokens": writing.max_tokens,
        }

    def _prefill(self) -> None:
        """Let the model read what was said so far while nobody waits for it: the next answer begins sooner."""
        self._reading.cancel()
        body = self._chat_request("Hello.")  # chat templates want a caller's turn last
        self._reading = self._spawn(self._peers.read_ahead(body))

    async def _think(self, generation: int, body: dict[str, Any]) -> AsyncGenerator[str, None]:
        self._reading.cancel()
        self._emit("llm_requested", generation)
        wrote = False
        try:
            async for piece in first_sentences(self._peers.chat(body), self._persona.writing.max_sentences):
                if not wrote:
                    self._emit("llm_first_token", generation)
                wrote = True
                yield piece
        except BadRequest as error:
            log.error("%s: no answer: %s", self._name, error)
        if not wrote:
            yield self._persona.phrases.no_answer

    def _begin(self, reply: Reply, pieces: AsyncGenerator[str, None]) -> None:
        self._reply = reply
        self._work = self._spawn(self._produce(reply, pieces))

    async def _produce(self, reply: Reply, pieces: AsyncGenerator[str, None]) -> None:
        try:
            await reply.speak(pieces, self._peers, lambda event: self._emit(event, reply.generation))
        except Unavailable as error:
            self._give_up(error)
            return
        self._trace.emit("reply_written", turn=reply.generation, text=reply.text)

    def _give_up(self, error: Unavailable) -> None:
        log.error("%s: %s", self._name, error)
        self.end("worker_lost")

    def _stop_work(self) -> None:
        if self._work is not None:
            self._work.cancel()

    def _cancel(self, generation: int, barge_in: bool) -> None:
        if barge_in:
            self._emit("barge_in", generation)
        self._emit("cancel_requested", generation)
        self._stop_work()
        played_samples = self._playout.cancel()
        self._emit("last_frame_published", generation)
        reply, self._reply = self._reply, None
        if reply is not None and (played_samples or reply.keep_caller):
            heard = reply.heard(played_samples)
            self._remember(reply, heard=heard, known_as=heard, cut_off=True)

    def _remember(self, reply: Reply, *, heard: str, known_as: str, cut_off: bool = False) -> None:
        """Put the turn into the history, in the words that the model knows it by."""
        self._history.add(reply.caller, known_as, cut_off=cut_off)
        if not self._over.done():
            self._prefill()
        self._room.caption(heard, segment=f"agent-{reply.generation}", caller=False, final=True)
        self._trace.emit("reply_heard", turn=reply.generation, text=heard, cut_off=cut_off)

    def _emit(self, event: wire.TraceEvent, generation: int, *, at_ns: int | None = None, **data: Any) -> None:
        self._trace.emit(event, at_ns=at_ns, turn=generation, **data)
