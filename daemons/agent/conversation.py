"""What is said in one call: carries out what the turn machine decides, with the workers that the call holds."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol, assert_never

from daemons import wire
from daemons.agent import turn
from daemons.agent.background import Background, Model, Note
from daemons.agent.company import Company
from daemons.agent.ending import endpoint_ms
from daemons.agent.following import Following, Transcriber
from daemons.agent.hearing import PRE_ROLL_MS, Hearing
from daemons.agent.history import History
from daemons.agent.metrics import Metrics
from daemons.agent.peers import NobodyServes
from daemons.agent.persona import Persona
from daemons.agent.playout import FRAME_SAMPLES, Playout, Sink
from daemons.agent.reply import Reply, Speaker, as_written, first_sentences
from daemons.agent.said import LONGEST_S, Said, Spoken
from daemons.agent.understanding import Understanding
from daemons.audio import Samples
from daemons.clock import Clock
from daemons.errors import BadRequest, Unavailable
from daemons.wire import Priority

log = logging.getLogger(__name__)

UNHEARD_MIN_SPEECH_MS = 288  # without words to judge by: "hi" has 350 ms of speech
UNWRITTEN = "…"  # the caption of what is being written down

_AGENT_STATE: dict[turn.State, wire.AgentState] = {
    turn.State.LISTENING: "listening",
    turn.State.HEARING: "listening",
    turn.State.DECIDING: "thinking",
    turn.State.THINKING: "thinking",
    turn.State.SPEAKING: "speaking",
    turn.State.INTERRUPTED: "speaking",
    turn.State.ENDING: "listening",
}


class Workers(Transcriber, Speaker, Model, Protocol):
    """Who transcribes, writes and speaks. Each raises Unavailable; NobodyServes when it is of no use to ask again."""

    async def render(self, text: str) -> Samples:
        """`text` spoken: int16 [n] at 24 kHz."""


class Listener(Protocol):
    async def probability(self, utterance: Samples) -> float | None:
        """That `utterance` (int16 [n], 16 kHz) is complete; None when that cannot be said in time."""


class Page(Sink, Protocol):
    """Where the caller hears and reads what is said."""

    def tell_state(self, state: wire.AgentState) -> None: ...

    def caption(self, text: str, *, segment: str, caller: bool, final: bool) -> None: ...

    def kept_as(self, generation: int) -> str | None:
        """The trace under which the audio of this reply is kept; None when the caller has not asked for that."""

    async def picture(self) -> str | None:
        """What the caller's camera sees now, as a `data:` URL; None when there is none to be had at once."""


class Emit(Protocol):
    """Writes an event into the call's trace."""

    def __call__(self, event: str, *, at_ns: int | None = None, **data: Any) -> None: ...


class Conversation:
    """`omni`: the model hears the caller itself, and nobody transcribes.

    `phrases` keeps what was rendered for any call: int16 [n] at 24 kHz, by its text.

    `spawn` starts a task of the call; `give_up` is told when no worker can be had any more.
    """

    def __init__(
        self,
        *,
        persona: Persona,
        llm_model: str,
        omni: bool,
        workers: Workers,
        hearing: Hearing,
        listener: Listener | None,
        page: Page,
        emit: Emit,
        clock: Clock,
        phrases: dict[str, Samples],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        give_up: Callable[[str], None],
        metrics: Metrics,
    ) -> None:
        self._persona = persona
        self._llm_model = llm_model
        self._omni = omni
        self._shows = True  # pictures go with the turns, where there are any
        self._workers = workers
        self._hearing = hearing
        self._listener = listener
        self._page = page
        self._trace = emit
        self._clock = clock
        self._spawn = spawn
        self._give_up = give_up
        self._metrics = metrics
        self._turn = turn.Turn(_timing(persona, omni=omni), persona.turns.speculation)
        self._history = History(persona)
        self._playout = Playout(page, clock, persona.sounds.mixer(), hearing.plays, self._on_frame, self._on_voice_over)
        self._company = Company(
            hold=persona.phrases.hold,
            rendered=phrases,
            render=workers.render,
            idle=lambda: self._greeted and self.quiet,
            turn=self._turn,
            playout=self._playout,
            clock=clock,
            on_held=lambda text: emit("held", text=text),
        )
        self._speech_ended_ns: int | None = None  # of the words that are not answered yet
        self._reply: Reply | None = None
        self._replying: asyncio.Task[None] | None = None
        self._taking: asyncio.Task[None] | None = None
        self._background = Background(
            lane=persona.turns.lane,
            model=workers,
            model_name=llm_model,
            read_ahead=self._what_to_read_ahead,
            on_words=self._on_written_down,
            on_understood=self._on_understood,
            clock=clock,
            spawn=spawn,
            metrics=metrics,
        )
        self._following = Following(hearing=hearing, transcriber=workers, on_words=self._background.begin, spawn=spawn)
        self._reads_along = persona.turns.speculation and not omni and persona.turns.lane != "slow"
        self._greeted = False
        self._turns = 0
        self._speculative = False  # the reply under way is prepared, and may be thrown away
        self._state: wire.AgentState = "initializing"

    @property
    def turns(self) -> int:
        """How often the caller has said something that was answered."""
        return self._turns

    @property
    def quiet(self) -> bool:
        """Nobody speaks, and nothing is about to be said."""
        return self._turn.state is turn.State.LISTENING

    async def run(self) -> None:
        """Play what is to be heard, until cancelled."""
        self._page.tell_state(self._state)
        self._background.begin()
        self._spawn(self._company.keep())
        await self._playout.run()

    def hear(self, samples: Samples) -> None:
        """The caller's audio: int16 [n] at 16 kHz."""
        for window in self._hearing.push(samples):
            self._feed(window)
        if self._reads_along and self._turn.state is turn.State.HEARING:
            self._following.go_on()

    def tick(self) -> None:
        """Call it now and then: silence, where no audio comes."""
        for window in self._hearing.tick():
            self._feed(window)

    def read(self, text: str) -> None:
        """The caller typed `text`."""
        self._speech_ended_ns = None
        self._feed(turn.Written(text))

    def announce(self, text: str) -> None:
        """The agent says `text` of its own accord."""
        self._greeted = True
        self._playout.begin_ambience()
        self._feed(turn.Announced(text))

    def end(self) -> None:
        self._feed(turn.Ended())

    # What is heard of a reply

    def _on_frame(self, generation: int, played_samples: int) -> None:
        reply = self._reply
        if reply is None or reply.generation != generation:
            return
        if played_samples == FRAME_SAMPLES and self._turn.state is turn.State.THINKING:
            self._emit("first_frame_published", generation)
            if self._speech_ended_ns is not None:
                self._metrics.answered_s.observe((self._clock.now_ns() - self._speech_ended_ns) / 1e9)
                self._speech_ended_ns = None
            self._feed(turn.FirstFrame(generation))
        if (heard := reply.begun(played_samples)) is not None:
            self._page.caption(heard, segment=f"agent-{generation}", caller=False, final=False)

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
        if self._turn.state in (turn.State.HEARING, turn.State.INTERRUPTED):
            self._playout.hush()
        if (state := _AGENT_STATE[self._turn.state]) != self._state:
            self._state = state
            self._page.tell_state(state)

    def _do(self, action: turn.Action) -> None:
        match action:
            case turn.OpenUtterance(_, began_ms):
                self._hearing.open()
                self._emit("user_started", self._turn.generation + 1, at_ns=round(began_ms * 1e6))
            case turn.Transcribe():
                self._following.stop()
                self._taking = self._spawn(self._record(action) if self._omni else self._transcribe(action))
            case turn.DropTake():
                _stop(self._taking)
            case turn.DropUtterance():
                self._following.forget()
                self._hearing.drop()
            case turn.Think(generation, said, keep, speculative):
                self._speculative = speculative
                priority: Priority = "speculative" if speculative else "committed"
                reply = Reply(generation, said, self._playout.start(generation), keep_caller=keep)
                if self._persona.turns.lane == "slow":
                    self._say_nothing(reply)
                else:
                    self._begin(reply, self._think(generation, said, priority))
            case turn.Say(generation, text):
                reply = Reply(generation, "", self._playout.start(generation), keep_caller=False)
                self._begin(reply, as_written(text))
            case turn.Commit(generation):
                self._commit(generation)
            case turn.Hold(generation):
                self._emit("playout_held", generation, played_samples=self._playout.hold())
            case turn.Resume(generation):
                self._playout.resume()
                self._emit("playout_resumed", generation)
            case turn.Cancel(generation, why):
                self._cancel(generation, why)
            case turn.GiveUp():
                self._give_up("a reply failed again and again")
            case _:
                assert_never(action)

    async def _record(self, request: turn.Transcribe) -> None:
        """What was said is its sound, and the voice alone tells whether it was all."""
        self._on_speech_ended(request)
        utterance = self._hearing.utterance()
        probability, picture = await asyncio.gather(self._sounds_complete(utterance), self._picture())
        said = Spoken.of(utterance, picture)
        self._feed(turn.Transcribed(request.take, said, self._endpoint_ms(None, probability)))

    async def _transcribe(self, request: turn.Transcribe) -> None:
        self._on_speech_ended(request)
        self._emit("stt_requested", self._turn.generation + 1)
        utterance = self._hearing.utterance()
        try:
            async with asyncio.TaskGroup() as tasks:
                judging = tasks.create_task(self._sounds_complete(utterance))
                final = await self._workers.transcribe(utterance)
                self._on_words(request, final, judging.result() if judging.done() else None)
                if not judging.done() and (probability := await judging) is not None:
                    self._feed(turn.Judged(request.take, self._endpoint_ms(final.text, probability)))
        except* Unavailable as group:
            self._give_up(str(group.exceptions[0]))

    async def _picture(self) -> str | None:
        return await self._page.picture() if self._shows else None

    def _on_speech_ended(self, request: turn.Transcribe) -> None:
        self._speech_ended_ns = round(request.speech_ended_ms * 1e6)
        self._emit("user_stopped", self._turn.generation + 1, at_ns=self._speech_ended_ns)

    async def _sounds_complete(self, utterance: Samples) -> float | None:
        """The probability that the caller's voice sounds as if the turn were over."""
        return None if self._listener is None else await self._listener.probability(utterance)

    def _on_words(self, request: turn.Transcribe, final: wire.SttFinal, probability: float | None) -> None:
        generation = self._turn.generation + 1
        self._emit("stt_final", generation, text=final.text, audio_ms=final.audio_ms, compute_ms=final.compute_ms)
        if final.text:
            self._page.caption(final.text, segment=f"caller-{request.utterance}", caller=True, final=False)
        self._feed(turn.Transcribed(request.take, final.text, self._endpoint_ms(final.text, probability)))

    def _endpoint_ms(self, text: str | None, probability: float | None) -> float:
        return endpoint_ms(text, probability, self._persona.turns.waits)

    def _chat_request(self, said: Said) -> dict[str, Any]:
        writing = self._persona.writing
        return {
            "model": self._llm_model,
            "messages": self._history.messages(said),
            "temperature": writing.temperature,
            "repeat_penalty": writing.repeat_penalty,
            "max_tokens": writing.max_tokens,
        }

    def _what_to_read_ahead(self) -> dict[str, Any] | None:
        """What is known of the next prompt, so that its answer begins sooner; sound would have to be read again."""
        if self._persona.turns.lane == "slow" or not self._history.is_in_words:
            return None
        return self._chat_request(self._following.words or "Hello.")  # chat templates want a caller's turn last

    async def _think(self, generation: int, said: Said, priority: Priority) -> AsyncGenerator[str, None]:
        self._background.stop()
        self._emit("llm_requested", generation)
        wrote = False
        try:
            most = self._persona.writing.max_sentences
            async for piece in first_sentences(self._workers.chat(self._chat_request(said), priority), most):
                if not wrote:
                    self._emit("llm_first_token", generation)
                wrote = True
                yield piece
        except BadRequest as error:
            log.error("no answer: %s", error)
            if isinstance(said, Spoken) and said.picture_url:
                self._shows = False  # perhaps it hears and does not see
        if not wrote:
            yield self._persona.phrases.no_answer

    def _say_nothing(self, reply: Reply) -> None:
        """A listener that takes notes: the turn ends as soon as it is the agent's."""
        self._reply = reply
        reply.voice.end()

    def _begin(self, reply: Reply, pieces: AsyncGenerator[str, None]) -> None:
        self._reply = reply
        self._replying = self._spawn(self._produce(reply, pieces))

    async def _produce(self, reply: Reply, pieces: AsyncGenerator[str, None]) -> None:
        try:
            kept_as = self._page.kept_as(reply.generation)
            await reply.speak(pieces, self._workers, kept_as, lambda event: self._emit(event, reply.generation))
        except NobodyServes as error:
            self._give_up(str(error))
        except Unavailable as error:
            log.warning("turn %d has no answer yet: %s", reply.generation, error)
            self._feed(turn.Failed(reply.generation))
        else:
            self._trace("reply_written", turn=reply.generation, text=reply.text)
            if self._background.waits:
                self._background.begin()

    def _commit(self, generation: int) -> None:
        self._emit("eot_committed", generation)
        is_being_written = self._replying is not None and not self._replying.done()
        if self._speculative and is_being_written:
            self._spawn(self._workers.keep_answer())
        self._count("kept")
        if (reply := self._reply) is None:
            return
        reply.commit()
        if not reply.caller:
            return
        self._turns += 1
        segment = f"caller-{self._turn.utterance}"
        self._background.note(generation, segment, reply.caller, self._history.messages(reply.caller)[:-1])
        if self._background.waits and not is_being_written:
            self._background.begin()
        if not reply.keep_caller:
            words = reply.caller if isinstance(reply.caller, str) else None
            self._page.caption(words or UNWRITTEN, segment=segment, caller=True, final=words is not None)

    def _cancel(self, generation: int, why: turn.Why) -> None:
        if why is turn.Why.BARGE_IN:
            self._emit("barge_in", generation)
        self._emit("cancel_requested", generation, why=why)
        self._count("failed" if why is turn.Why.FAILED else "thrown_away")
        _stop(self._replying)
        played_samples = self._playout.cancel()
        if played_samples:
            self._emit("last_frame_published", generation, played_samples=played_samples)
        reply, self._reply = self._reply, None
        if reply is None:
            return
        if why is turn.Why.WENT_ON:
            self._background.drop(reply.caller)
        if why is not turn.Why.FAILED and (played_samples or reply.keep_caller):
            heard = reply.heard(played_samples)
            self._remember(reply, heard=heard, known_as=heard, cut_off=True)

    def _count(self, outcome: str) -> None:
        if self._speculative:
            self._metrics.speculations.labels(outcome).inc()
            self._speculative = False

    def _remember(self, reply: Reply, *, heard: str, known_as: str, cut_off: bool = False) -> None:
        """Put the turn into the history, in the words that the model knows it by."""
        self._history.add(reply.caller, known_as, cut_off=cut_off)
        if self._turn.state is not turn.State.ENDING:
            self._background.begin()
        if self._persona.turns.lane == "slow" and reply.caller:
            return
        self._page.caption(heard, segment=f"agent-{reply.generation}", caller=False, final=True)
        self._trace("reply_heard", turn=reply.generation, text=heard, cut_off=cut_off)

    # What is learned of the caller's turn after it

    def _on_written_down(self, note: Note) -> None:
        words = note.said.words if isinstance(note.said, Spoken) else note.said
        if words is not None:
            self._emit("captioned", note.generation, text=words)
        self._page.caption(UNWRITTEN if words is None else words, segment=note.segment, caller=True, final=True)

    def _on_understood(self, note: Note, understood: Understanding | str) -> None:
        if isinstance(understood, str):
            self._emit("not_understood", note.generation, why=understood)
        else:
            self._emit("understood", note.generation, **understood.model_dump())

    def _emit(self, event: wire.TraceEvent, generation: int, *, at_ns: int | None = None, **data: Any) -> None:
        self._trace(event, at_ns=at_ns, turn=generation, **data)


def _timing(persona: Persona, *, omni: bool) -> turn.Timing:
    timing = turn.Timing(endpoint_ms=persona.turns.longest_ms)
    if not omni:
        return timing
    longest_ms = 1000 * LONGEST_S - PRE_ROLL_MS - timing.endpoint_ms  # so that its beginning is heard, too
    return replace(timing, min_speech_ms=UNHEARD_MIN_SPEECH_MS, max_utterance_ms=longest_ms)


def _stop(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
