"""The turn machine, told as conversations. `speech` and `silence` are the caller's audio in 32 ms windows."""

import random

import pytest

from daemons.agent import turn
from daemons.agent.turn import State, Turn

WINDOW_MS = 32.0


class Conversation:
    """Feeds a machine and keeps what it asked for."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.actions: list[turn.Action] = []
        self.at_ms = 0.0
        self._windows(1, speech=False)

    def state(self) -> State:
        return self.turn.state

    def speech(self, ms: float) -> list[turn.Action]:
        return self._windows(ms / WINDOW_MS, speech=True)

    def silence(self, ms: float) -> list[turn.Action]:
        return self._windows(ms / WINDOW_MS, speech=False)

    def on(self, event: turn.Event) -> list[turn.Action]:
        actions = self.turn.on(event)
        self.actions += actions
        return actions

    def transcribed(self, text: str) -> list[turn.Action]:
        return self.on(turn.Transcribed(self.turn.take, text))

    def ask(self, text: str = "what time is it") -> list[turn.Action]:
        """The caller asks; the reply is under way and not heard yet."""
        self.speech(800)
        self.silence(600)
        return self.transcribed(text)

    def hear_reply(self) -> None:
        self.on(turn.FirstFrame(self.turn.generation))

    def _windows(self, count: float, *, speech: bool) -> list[turn.Action]:
        actions: list[turn.Action] = []
        for _ in range(round(count)):
            self.at_ms += WINDOW_MS
            actions += self.on(turn.Window(self.at_ms, speech))
        return actions


@pytest.fixture
def call() -> Conversation:
    return Conversation()


def kinds(actions: list[turn.Action]) -> list[type]:
    return [type(action) for action in actions]


def test_a_question_is_answered(call: Conversation) -> None:
    assert kinds(call.speech(800)) == [turn.OpenUtterance]
    assert call.state() is State.HEARING
    assert kinds(call.silence(600)) == [turn.Transcribe]
    assert call.state() is State.DECIDING
    assert call.transcribed("hello") == [turn.Think(1, "hello", written=False), turn.Commit(1)]
    assert call.state() is State.THINKING
    assert kinds(call.on(turn.FirstFrame(1))) == [turn.DropUtterance]
    assert call.state() is State.SPEAKING
    assert call.on(turn.ReplyOver(1)) == []
    assert call.state() is State.LISTENING


def test_the_end_of_speech_is_told_not_the_end_of_the_wait(call: Conversation) -> None:
    call.speech(800)
    ended_ms = call.at_ms
    (request,) = call.silence(600)
    assert isinstance(request, turn.Transcribe)
    assert request.speech_ended_ms == ended_ms


def test_a_pause_in_a_sentence_does_not_end_the_turn(call: Conversation) -> None:
    call.speech(500)
    assert call.silence(400) == []
    assert call.speech(500) == []
    assert kinds(call.silence(600)) == [turn.Transcribe]


def test_speech_that_goes_on_while_deciding_joins_the_same_utterance(call: Conversation) -> None:
    call.speech(500)
    call.silence(600)
    stale = call.turn.take
    assert call.speech(300) == []
    assert call.state() is State.HEARING
    (again,) = call.silence(600)
    assert isinstance(again, turn.Transcribe)
    assert again.utterance == 1
    assert call.on(turn.Transcribed(stale, "only the first half")) == []
    assert call.transcribed("both halves")[0] == turn.Think(1, "both halves", written=False)


def test_speech_that_goes_on_while_thinking_cancels_what_nobody_heard(call: Conversation) -> None:
    call.ask()
    assert call.speech(300) == [turn.Cancel(1, barge_in=False)]
    assert kinds(call.silence(600)) == [turn.Transcribe]
    assert call.transcribed("the whole of it")[0] == turn.Think(2, "the whole of it", written=False)


def test_a_click_is_no_utterance(call: Conversation) -> None:
    assert call.speech(32) == []
    call.silence(600)
    assert kinds(call.speech(96)) == [turn.OpenUtterance]
    assert kinds(call.silence(600)) == [turn.DropUtterance]
    assert call.state() is State.LISTENING


def test_an_utterance_without_words_is_dropped(call: Conversation) -> None:
    call.speech(800)
    call.silence(600)
    assert kinds(call.transcribed("")) == [turn.DropUtterance]
    assert call.state() is State.LISTENING


def test_barge_in_holds_at_once_and_cancels_when_it_lasts(call: Conversation) -> None:
    call.ask()
    call.hear_reply()
    assert kinds(call.speech(64)) == [turn.Hold, turn.OpenUtterance]
    assert call.state() is State.INTERRUPTED
    assert call.speech(256) == [turn.Cancel(1, barge_in=True)]
    assert call.state() is State.HEARING
    assert kinds(call.silence(600)) == [turn.Transcribe]


def test_a_cough_over_the_reply_resumes_it(call: Conversation) -> None:
    call.ask()
    call.hear_reply()
    call.speech(128)
    assert kinds(call.silence(600)) == [turn.Resume, turn.DropUtterance]
    assert call.state() is State.SPEAKING


def test_a_reply_that_ends_while_held_leaves_the_floor_to_the_caller(call: Conversation) -> None:
    call.ask()
    call.hear_reply()
    call.speech(128)
    assert call.on(turn.ReplyOver(1)) == []
    call.speech(300)
    assert kinds(call.silence(600)) == [turn.Transcribe]


def test_typed_text_takes_the_floor(call: Conversation) -> None:
    call.ask()
    call.hear_reply()
    assert call.on(turn.Written("stop")) == [
        turn.Cancel(1, barge_in=False),
        turn.Think(2, "stop", written=True),
        turn.Commit(2),
    ]


def test_events_of_an_old_generation_change_nothing(call: Conversation) -> None:
    call.ask()
    call.hear_reply()
    call.speech(400)
    state = call.turn.state
    assert call.on(turn.FirstFrame(1)) == []
    assert call.on(turn.ReplyOver(1)) == []
    assert call.state() is state


def test_an_endless_utterance_is_answered(call: Conversation) -> None:
    actions = call.speech(61_000)
    assert kinds(actions) == [turn.OpenUtterance, turn.Transcribe]
    assert call.speech(1000) == []
    assert call.transcribed("and so on")[0] == turn.Think(1, "and so on", written=False)


def test_nothing_happens_after_the_end(call: Conversation) -> None:
    call.ask()
    call.hear_reply()
    assert kinds(call.on(turn.Ended())) == [turn.Cancel]
    assert call.speech(1000) == []
    assert call.on(turn.Written("hello?")) == []


def test_random_events_keep_the_invariants() -> None:
    """Never two generations at once, no utterance left open under another, always back to listening."""
    rng = random.Random(7)
    call = Conversation()
    live: int | None = None
    committed: set[int] = set()
    for _ in range(100_000):
        generation = rng.randint(max(0, call.turn.generation - 2), call.turn.generation + 1)
        event = rng.choice(
            [
                turn.Transcribed(rng.randint(max(0, call.turn.take - 1), call.turn.take), rng.choice(["", "words"])),
                turn.FirstFrame(generation),
                turn.ReplyOver(generation),
                turn.Written("words"),
                turn.Announced("words"),
                None,
            ]
        )
        if event is None:
            speech = rng.random() < 0.5
            actions = call.speech(rng.randint(1, 20) * WINDOW_MS) if speech else call.silence(rng.randint(1, 30) * 32)
        else:
            if isinstance(event, turn.ReplyOver) and event.generation == live and call.turn.replying:
                live = None
            actions = call.on(event)
        for action in actions:
            match action:
                case turn.Think(new) | turn.Say(new):
                    assert live is None, "a reply begins while another lives"
                    live = new
                case turn.Commit(of):
                    assert of == live
                    assert of not in committed
                    committed.add(of)
                case turn.Cancel(of):
                    assert of == live, "a cancel hits the live reply and no other"
                    live = None
                case turn.Hold(of) | turn.Resume(of):
                    assert of == live
        assert call.turn.replying == (live is not None)
    call.silence(2000)
    call.transcribed("")
    call.on(turn.ReplyOver(call.turn.generation))
    assert call.state() is State.LISTENING
