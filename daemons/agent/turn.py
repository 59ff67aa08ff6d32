"""Who has the floor: the pure turn machine. `Turn.on(event)` returns actions; it does no I/O and has no clock.

Time comes in with `Window`, one for each 32 ms of the caller's audio (or of its absence). A generation is one reply,
from the request to the language model to its last frame; an event of a generation that is over changes nothing.

            listening → hearing → deciding → thinking → speaking → listening
                          ↑          │           │          ↓
                          └──────────┴───────────┴──── interrupted → speaking (a false alarm)
"""

from dataclasses import dataclass, field
from enum import StrEnum


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
    """The answer to `Transcribe` number `take`; "" when the utterance holds no words."""

    take: int
    text: str


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
class Ended:
    """The call is over."""


Event = Window | Transcribed | Written | Announced | FirstFrame | ReplyOver | Ended


# What is to be done


@dataclass(frozen=True, slots=True)
class OpenUtterance:
    """Collect the caller's audio, beginning with the pre-roll before now."""

    utterance: int
    speech_began_ms: float


@dataclass(frozen=True, slots=True)
class Transcribe:
    """The utterance seems to have ended: its last speech was at `speech_ended_ms`. A later take replaces this one."""

    take: int
    utterance: int
    speech_ended_ms: float


@dataclass(frozen=True, slots=True)
class DropUtterance:
    utterance: int


@dataclass(frozen=True, slots=True)
class Think:
    """Ask for a reply to `text` and prepare its audio; nothing is heard before `Commit`."""

    generation: int
    text: str
    written: bool  # by the caller, who will not say it again when the reply is cancelled


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


@dataclass(frozen=True, slots=True)
class Cancel:
    """The whole cascade of this generation ends now: STT, LLM, TTS, playout."""

    generation: int
    barge_in: bool


Action = OpenUtterance | Transcribe | DropUtterance | Think | Say | Commit | Hold | Resume | Cancel


@dataclass(frozen=True, slots=True)
class Timing:
    """All in milliseconds of the caller's audio."""

    onset_ms: float = 64  # speech so long opens an utterance
    min_speech_ms: float = 200  # an utterance with less speech in all holds no words
    endpoint_ms: float = 480  # silence so long ends a turn
    max_utterance_ms: float = 60_000  # an utterance so long is answered although it goes on
    barge_in_ms: float = 288  # speech so long over a reply is meant
    false_alarm_ms: float = 320  # silence so long after a shorter burst resumes the reply


@dataclass(slots=True)
class Turn:
    timing: Timing = field(default_factory=Timing)
    state: State = State.LISTENING
    generation: int = 0
    utterance: int = 0
    take: int = 0
    _onset_ms: float = 0  # speech without a gap while no utterance is open
    _speech_ms: float = 0  # speech in the open utterance
    _burst_ms: float = 0  # speech in the open utterance since the reply was held
    _last_speech_ms: float = 0
    _last_window_ms: float | None = None
    _open: bool = False  # an utterance is open: it collects the caller's audio
    _opened_ms: float = 0

    @property
    def replying(self) -> bool:
        return self.state in (State.THINKING, State.SPEAKING, State.INTERRUPTED)

    def on(self, event: Event) -> list[Action]:
        if self.state is State.ENDING:
            return []
        match event:
            case Window():
                return self._on_window(event)
            case Transcribed():
                return self._on_transcribed(event)
            case Written(text):
                return [*self._clear_floor(), *self._reply(Think(self.generation + 1, text, written=True))]
            case Announced(text):
                return [*self._clear_floor(), *self._reply(Say(self.generation + 1, text))]
            case FirstFrame(generation):
                if generation != self.generation or self.state is not State.THINKING:
                    return []
                self.state = State.SPEAKING
                return self._drop_utterance()
            case ReplyOver(generation):
                return self._on_reply_over(generation)
            case Ended():
                actions = self._clear_floor()
                self.state = State.ENDING
                return actions

    def _on_window(self, window: Window) -> list[Action]:
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
        silence_ms = window.at_ms - self._last_speech_ms
        onset = self._onset_ms >= self.timing.onset_ms
        too_long = self._open and window.at_ms - self._opened_ms >= self.timing.max_utterance_ms
        match self.state:
            case State.LISTENING if onset:
                self.state = State.HEARING
                return self._open_utterance()
            case State.HEARING if too_long or silence_ms >= self.timing.endpoint_ms:
                return self._on_pause()
            case State.DECIDING | State.THINKING if onset and not too_long:
                return self._go_on()
            case State.SPEAKING if onset:
                self.state = State.INTERRUPTED
                return [Hold(self.generation), *self._open_utterance()]
            case State.INTERRUPTED:
                return self._on_interrupted(silence_ms)
        return []

    def _on_pause(self) -> list[Action]:
        if self._speech_ms < self.timing.min_speech_ms:
            self.state = State.LISTENING
            return self._drop_utterance()
        self.state = State.DECIDING
        self.take += 1
        return [Transcribe(self.take, self.utterance, self._last_speech_ms)]

    def _go_on(self) -> list[Action]:
        """The caller had only paused: what was begun for the shorter utterance is thrown away."""
        cancel = [Cancel(self.generation, barge_in=False)] if self.state is State.THINKING else []
        self.state = State.HEARING
        return [*cancel, *([] if self._open else self._open_utterance())]

    def _on_interrupted(self, silence_ms: float) -> list[Action]:
        if self._burst_ms >= self.timing.barge_in_ms:
            self.state = State.HEARING
            return [Cancel(self.generation, barge_in=True)]
        if silence_ms >= self.timing.false_alarm_ms:
            self.state = State.SPEAKING
            return [Resume(self.generation), *self._drop_utterance()]
        return []

    def _on_transcribed(self, event: Transcribed) -> list[Action]:
        if event.take != self.take or self.state is not State.DECIDING:
            return []
        if not event.text:
            self.state = State.LISTENING
            return self._drop_utterance()
        return self._reply(Think(self.generation + 1, event.text, written=False))

    def _on_reply_over(self, generation: int) -> list[Action]:
        if generation != self.generation or not self.replying:
            return []
        if self.state is State.INTERRUPTED:
            self.state = State.HEARING  # nothing is left to resume; what the caller says is an utterance like any other
            return []
        self.state = State.LISTENING
        return self._drop_utterance()

    def _reply(self, request: Think | Say) -> list[Action]:
        self.generation = request.generation
        self.state = State.THINKING
        return [request, Commit(self.generation)]

    def _clear_floor(self) -> list[Action]:
        cancel: list[Action] = [Cancel(self.generation, barge_in=False)] if self.replying else []
        return [*cancel, *self._drop_utterance()]

    def _open_utterance(self) -> list[Action]:
        self.utterance += 1
        self._open = True
        self._speech_ms = self._burst_ms = self._onset_ms
        self._opened_ms = self._last_speech_ms - self._onset_ms
        return [OpenUtterance(self.utterance, self._opened_ms)]

    def _drop_utterance(self) -> list[Action]:
        if not self._open:
            return []
        self._open = False
        self._onset_ms = 0.0
        return [DropUtterance(self.utterance)]
