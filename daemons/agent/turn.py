"""Who has the floor: the pure turn machine. `Turn.on(event)` returns actions; it does no I/O and has no clock.

Time comes in with `Window`, one for each 32 ms of the caller's audio (or of its absence). A generation is one reply,
from the request to the language model to its last frame; an event of a generation that is over changes nothing.

            listening → hearing → deciding → thinking → speaking → listening
                          ↑          │           │          ↓
                          └──────────┴───────────┴──── interrupted → speaking (a false alarm)

Speculation: each pause is transcribed after `speculate_ms` of silence, and a reply to what was said is prepared unheard
(`Think` that is not committed). When the pause has lasted as long as its words deserve (`Transcribed.endpoint_ms`), the
reply is committed; when the caller goes on first, it is cancelled. Where that happens to most replies, later ones are
prepared only once they are committed.
"""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from daemons.agent.backchannel import is_backchannel
from daemons.agent.said import Said


class State(StrEnum):
    LISTENING = "listening"  # nobody speaks
    HEARING = "hearing"  # the caller speaks, or pauses in a sentence
    DECIDING = "deciding"  # the caller is silent; what was said is being transcribed
    THINKING = "thinking"  # a reply has been asked for and cannot be heard yet
    SPEAKING = "speaking"  # a reply is being played
    INTERRUPTED = "interrupted"  # a reply is held while it turns out whether the caller means it
    ENDING = "ending"  # nothing more is said or heard


# What happens


@dataclass(frozen=True, slots=True)
class Window:
    """`at_ms` is the end of the window on the call's audio time line."""

    at_ms: float
    speech: bool


@dataclass(frozen=True, slots=True)
class Transcribed:
    """The answer to `Transcribe` number `take`: "" when the utterance holds no words, its sound where none are wanted.

    Silence of `endpoint_ms` after it means that the caller has finished.
    """

    take: int
    said: Said
    endpoint_ms: float


@dataclass(frozen=True, slots=True)
class Judged:
    """More is known of what was transcribed for `take`: silence of `endpoint_ms` ends the turn."""

    take: int
    endpoint_ms: float


@dataclass(frozen=True, slots=True)
class Written:
    """The caller typed instead of speaking."""

    text: str


@dataclass(frozen=True, slots=True)
class Announced:
    """The agent speaks of its own accord (greeting, goodbye)."""

    text: str


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """The reply can be heard from now on."""

    generation: int


@dataclass(frozen=True, slots=True)
class ReplyOver:
    """The last frame of the reply was played, or the reply failed."""

    generation: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The reply cannot be finished: a worker is gone. It may be asked for again."""

    generation: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The call is over."""


Event = Window | Transcribed | Judged | Written | Announced | FirstFrame | ReplyOver | Failed | Ended


# What is to be done


@dataclass(frozen=True, slots=True)
class OpenUtterance:
    """Collect the caller's audio, beginning with the pre-roll before now."""

    utterance: int
    speech_began_ms: float


@dataclass(frozen=True, slots=True)
class Transcribe:
    """The utterance seems to have ended: its last speech was at `speech_ended_ms`."""

    take: int
    utterance: int
    speech_ended_ms: float


@dataclass(frozen=True, slots=True)
class DropTake:
    """The utterance goes on, or is over: nobody wants to know any more what it said so far."""

    take: int


@dataclass(frozen=True, slots=True)
class DropUtterance:
    utterance: int


@dataclass(frozen=True, slots=True)
class Think:
    """Ask for a reply to `said` and prepare its audio; nothing is heard before `Commit`."""

    generation: int
    said: Said
    keep: bool  # `said` is remembered though the reply is cancelled unheard: the caller will not say it again
    speculative: bool = False  # no `Commit` follows at once


@dataclass(frozen=True, slots=True)
class Say:
    """Prepare the audio of `text` as it stands."""

    generation: int
    text: str


@dataclass(frozen=True, slots=True)
class Commit:
    """The turn is the agent's: the generation's audio may be heard."""

    generation: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Stop playing at once, keep what is left."""

    generation: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on where `Hold` stopped."""

    generation: int


class Why(StrEnum):
    """Why a generation is cancelled."""

    WENT_ON = "went_on"  # the caller had only paused
    BARGE_IN = "barge_in"
    REPLACED = "replaced"  # something else is to be said
    FAILED = "failed"  # the next generation makes up for it
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Cancel:
    """The whole cascade of this generation ends now: LLM, TTS, playout."""

    generation: int
    why: Why


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The reply failed again and again."""


Action = OpenUtterance | Transcribe | DropTake | DropUtterance | Think | Say | Commit | Hold | Resume | Cancel | GiveUp


@dataclass(frozen=True, slots=True)
class Timing:
    """All in milliseconds of the caller's audio."""

    onset_ms: float = 64  # speech so long opens an utterance
    min_speech_ms: float = 200  # an utterance with less speech in all holds no words
    speculate_ms: float = 32  # silence so long is a pause: what was said is transcribed
    think_ahead_ms: float = 600  # a reply is prepared so long before the end of the turn would be sure
    endpoint_ms: float = 1200  # silence so long ends any turn
    max_utterance_ms: float = 60_000  # an utterance so long is answered although it goes on
    barge_in_ms: float = 640  # speech so long over a reply is meant, whatever it says
    false_alarm_ms: float = 320  # silence so long after a sound that does not want the floor resumes the reply


KEPT_SMOOTHING = 0.2
RARELY_KEPT = 0.3  # below that share, replies are prepared no sooner than they are committed
MAX_REDOS = 3  # of one reply, by Failed


@dataclass(slots=True)
class Turn:
    timing: Timing = field(default_factory=Timing)
    speculates: bool = True
    state: State = State.LISTENING
    generation: int = 0
    utterance: int = 0
    take: int = 0
    kept: float = 1.0  # the share of transcribed pauses that were ends of turns, smoothed
    _request: Think | Say | None = None  # the reply that is prepared or heard
    _redos: int = 0  # of this reply
    _broken: bool = False  # the reply failed while it was held
    _take: Transcribed | None = None  # what the pause's words are, once they are known
    _asked: bool = False  # the pause's words have been asked for
    _onset_ms: float = 0  # speech without a gap while no utterance is open
    _speech_ms: float = 0  # speech in the open utterance
    _burst_ms: float = 0  # speech in the open utterance since the reply was held
    _silence_ms: float = 0
    _last_speech_ms: float = 0
    _last_window_ms: float | None = None
    _open: bool = False  # an utterance is open: it collects the caller's audio
    _opened_ms: float = 0
    _too_long: bool = False  # the open utterance is

    @property
    def replying(self) -> bool:
        """A reply lives: it is prepared, heard or held."""
        return self._request is not None

    @property
    def awaited(self) -> bool:
        """The caller is silent, and waits for the agent or listens to it."""
        if self.state is State.DECIDING:
            return self._take is None or bool(self._take.said)
        return self.state in (State.THINKING, State.SPEAKING)

    @property
    def owed(self) -> bool:
        """An answer is: the agent does not wait for more of the caller's words."""
        return self.awaited and (self.state is not State.DECIDING or self._take is None)

    def on(self, event: Event) -> list[Action]:
        if self.state is State.ENDING:
            return []
        match event:
            case Window():
                return self._on_window(event)
            case Transcribed():
                return self._on_transcribed(event)
            case Judged(take, endpoint_ms):
                return self._on_judged(take, endpoint_ms)
            case Written(text):
                return [*self._clear_floor(Why.REPLACED), *self._answer(text, keep=True)]
            case Announced(text):
                return [*self._clear_floor(Why.REPLACED), *self._reply(Say(self.generation + 1, text))]
            case FirstFrame(generation):
                return self._on_first_frame(generation)
            case ReplyOver(generation):
                return self._on_reply_over(generation)
            case Failed(generation):
                return self._on_failed(generation)
            case Ended():
                actions = self._clear_floor(Why.ENDED)
                self.state = State.ENDING
                return actions

    def _on_window(self, window: Window) -> list[Action]:
        self._listen(window)
        onset = self._onset_ms >= self.timing.onset_ms
        match self.state:
            case State.LISTENING if onset:
                self.state = State.HEARING
                return self._open_utterance()
            case State.HEARING:
                return self._on_pause()
            case State.DECIDING | State.THINKING if onset and not self._too_long:
                return self._go_on()
            case State.DECIDING:
                return self._decide()
            case State.SPEAKING if onset:
                self.state = State.INTERRUPTED
                return [Hold(self.generation), *self._open_utterance()]
            case State.INTERRUPTED:
                return self._on_interrupted(onset)
        return []

    def _listen(self, window: Window) -> None:
        length_ms = 0.0 if self._last_window_ms is None else max(0.0, window.at_ms - self._last_window_ms)
        self._last_window_ms = window.at_ms
        if window.speech:
            self._onset_ms += length_ms
            self._last_speech_ms = window.at_ms
            if self._open:
                self._speech_ms += length_ms
                self._burst_ms += length_ms
        else:
            self._onset_ms = 0.0
        self._silence_ms = window.at_ms - self._last_speech_ms
        self._too_long = self._open and window.at_ms - self._opened_ms >= self.timing.max_utterance_ms

    # The caller speaks and pauses

    def _on_pause(self) -> list[Action]:
        if self._silence_ms < self.timing.speculate_ms and not self._too_long:
            return []
        if self._speech_ms >= self.timing.min_speech_ms:
            self.state = State.DECIDING
            return self._transcribe()
        if self._silence_ms >= self.timing.endpoint_ms:
            self.state = State.LISTENING
            return self._drop_utterance()
        return []

    def _transcribe(self) -> list[Action]:
        self.take += 1
        self._asked = True
        return [Transcribe(self.take, self.utterance, self._last_speech_ms)]

    def _on_transcribed(self, event: Transcribed) -> list[Action]:
        if event.take != self.take or not self._asked or self._take is not None:
            return []
        self._take = event
        if self.state is not State.INTERRUPTED:
            return self._decide()
        if not isinstance(event.said, str) or is_backchannel(event.said):
            return []  # more may follow: "okay, but wait"; of mere sound only its length says that it is meant
        self.state = State.DECIDING
        return [*self._cancel(Why.BARGE_IN), *self._decide()]

    def _on_judged(self, take: int, endpoint_ms: float) -> list[Action]:
        if self._take is None or self._take.take != take or self.state is not State.DECIDING:
            return []
        self._take = replace(self._take, endpoint_ms=endpoint_ms)
        return self._decide()

    def _decide(self) -> list[Action]:
        """The caller is silent: prepare a reply when its time has come, and commit it when the turn is over."""
        if self._take is None:
            return []
        if not self._take.said:
            if self._silence_ms < self.timing.endpoint_ms and not self._too_long:
                return []  # the next words may make sense of what was heard
            self.state = State.LISTENING
            return self._drop_utterance()
        left_ms = 0.0 if self._too_long else self._take.endpoint_ms - self._silence_ms
        if left_ms <= 0:
            self._count(kept=True)
            if self._request is None:
                return self._answer(self._take.said, keep=False)
            self.state = State.THINKING
            return [Commit(self.generation)]
        early = self.speculates and self.kept >= RARELY_KEPT and left_ms <= self.timing.think_ahead_ms
        if early and self._request is None and not self._redos:
            return [self._begin(Think(self.generation + 1, self._take.said, keep=False, speculative=True))]
        return []

    def _go_on(self) -> list[Action]:
        """The caller had only paused: what was begun for the shorter utterance is thrown away."""
        if self.state is State.DECIDING and self._take is not None:
            self._count(kept=False)
        self.state = State.HEARING
        self._redos = 0
        return [*self._drop_take(), *self._cancel(Why.WENT_ON), *([] if self._open else self._open_utterance())]

    def _count(self, *, kept: bool) -> None:
        self.kept += KEPT_SMOOTHING * (kept - self.kept)

    # A reply is held because the caller makes a sound

    def _on_interrupted(self, onset: bool) -> list[Action]:
        if self._burst_ms >= self.timing.barge_in_ms:
            self.state = State.HEARING
            return [*self._drop_take(), *self._cancel(Why.BARGE_IN)]
        if onset:
            return self._drop_take()
        if self._burst_ms < self.timing.min_speech_ms or self._take is not None:
            return self._let_through() if self._silence_ms >= self.timing.false_alarm_ms else []
        if self._silence_ms >= self.timing.endpoint_ms:  # its words are late: what lasted so long is meant
            self.state = State.DECIDING
            return self._cancel(Why.BARGE_IN)
        return self._transcribe() if self._silence_ms >= self.timing.speculate_ms and not self._asked else []

    def _let_through(self) -> list[Action]:
        dropped = self._drop_utterance()
        if self._broken:
            return [*dropped, *self._redo()]
        self.state = State.SPEAKING
        return [Resume(self.generation), *dropped]

    # The agent replies

    def _answer(self, said: Said, *, keep: bool) -> list[Action]:
        return self._reply(Think(self.generation + 1, said, keep))

    def _reply(self, request: Think | Say) -> list[Action]:
        self.state = State.THINKING
        return [self._begin(request), Commit(self.generation)]

    def _begin(self, request: Think | Say) -> Think | Say:
        self.generation = request.generation
        self._request = request
        self._broken = False
        return request

    def _on_first_frame(self, generation: int) -> list[Action]:
        if generation != self.generation or self.state is not State.THINKING:
            return []
        self.state = State.SPEAKING
        return self._drop_utterance()

    def _on_reply_over(self, generation: int) -> list[Action]:
        if generation != self.generation or self.state not in (State.THINKING, State.SPEAKING, State.INTERRUPTED):
            return []
        self._request = None
        self._redos = 0
        if self.state is State.INTERRUPTED:
            self.state = State.HEARING  # nothing is left to resume; what the caller says is an utterance like any other
            return self._drop_take()
        self.state = State.LISTENING
        return self._drop_utterance()

    def _on_failed(self, generation: int) -> list[Action]:
        if generation != self.generation or self._request is None:
            return []
        if self.state is State.DECIDING:  # asked for again when the turn is over, and no sooner
            self._redos += 1
            return self._cancel(Why.FAILED)
        if self.state is State.INTERRUPTED:
            self._broken = True
            return []
        return self._redo()

    def _redo(self) -> list[Action]:
        """The same reply once more, by workers that live; in vain too often, there is none."""
        if (request := self._request) is None:
            return []
        self._redos += 1
        cancel = self._cancel(Why.FAILED)
        if self._redos > MAX_REDOS:
            self.state = State.LISTENING
            return [*cancel, *self._drop_utterance(), GiveUp()]
        if isinstance(request, Think):
            return [*cancel, *self._answer(request.said, keep=request.keep or not self._open)]
        return [*cancel, *self._reply(Say(self.generation + 1, request.text))]

    # What is let go

    def _clear_floor(self, why: Why) -> list[Action]:
        return [*self._cancel(why), *self._drop_utterance()]

    def _cancel(self, why: Why) -> list[Action]:
        if self._request is None:
            return []
        self._request = None
        if why is not Why.FAILED:
            self._redos = 0
        return [Cancel(self.generation, why)]

    def _open_utterance(self) -> list[Action]:
        self.utterance += 1
        self._open = True
        self._speech_ms = self._burst_ms = self._onset_ms
        self._opened_ms = self._last_speech_ms - self._onset_ms
        return [OpenUtterance(self.utterance, self._opened_ms)]

    def _drop_take(self) -> list[Action]:
        pending = self._asked and self._take is None
        self._asked = False
        self._take = None
        return [DropTake(self.take)] if pending else []

    def _drop_utterance(self) -> list[Action]:
        dropped = self._drop_take()
        if not self._open:
            return dropped
        self._open = False
        self._onset_ms = 0.0
        return [*dropped, DropUtterance(self.utterance)]
