"""The turn machine, told as conversations. `speech` and `silence` are the caller's audio in 32 ms windows."""

import pytest

from daemons.agent import turn
from daemons.agent.turn import State, Turn, Why

WINDOW_MS = 32.0
ENDPOINT_MS = 480.0  # of words that sound finished, here
UNFINISHED_MS = 1000.0


class Caller:
    """Feeds a machine and keeps what it asked for."""

    def __init__(self, *, speculates: bool = True) -> None:
        self.turn = Turn(speculates=speculates)
        self.at_ms = 0.0
        self._windows(1, speech=False)

    def state(self) -> State:
        return self.turn.state

    def speech(self, ms: float) -> list[turn.Action]:
        return self._windows(ms / WINDOW_MS, speech=True)

    def silence(self, ms: float) -> list[turn.Action]:
        return self._windows(ms / WINDOW_MS, speech=False)

    def on(self, event: turn.Event) -> list[turn.Action]:
        return self.turn.on(event)

    def understood(self, text: str, endpoint_ms: float = ENDPOINT_MS) -> list[turn.Action]:
        return self.on(turn.Transcribed(self.turn.take, text, endpoint_ms))

    def ask(self, text: str = "what time is it") -> None:
        """The caller asks; the reply is under way and not heard yet."""
        self.speech(800)
        self.silence(128)
        self.understood(text)
        self.silence(480)
        assert self.state() is State.THINKING

    def hear_reply(self) -> None:
        self.on(turn.FirstFrame(self.turn.generation))
        assert self.state() is State.SPEAKING

    def _windows(self, count: float, *, speech: bool) -> list[turn.Action]:
        actions: list[turn.Action] = []
        for _ in range(round(count)):
            self.at_ms += WINDOW_MS
            actions += self.on(turn.Window(self.at_ms, speech))
        return actions


@pytest.fixture
def call() -> Caller:
    return Caller()


def kinds(actions: list[turn.Action]) -> list[type]:
    return [type(action) for action in actions]


def test_a_reply_is_prepared_in_the_pause_and_committed_when_it_has_lasted(call: Caller) -> None:
    assert kinds(call.speech(800)) == [turn.OpenUtterance]
    assert call.state() is State.HEARING
    assert kinds(call.silence(96)) == [turn.Transcribe]
    assert call.state() is State.DECIDING
    assert call.understood("hello") == [turn.Think(1, "hello", keep=False, speculative=True)]
    assert call.silence(352) == []
    assert call.silence(32) == [turn.Commit(1)]
    assert call.state() is State.THINKING
    assert kinds(call.on(turn.FirstFrame(1))) == [turn.DropUtterance]
    assert call.state() is State.SPEAKING
    assert call.on(turn.ReplyOver(1)) == []
    assert call.state() is State.LISTENING


def test_words_that_come_late_are_answered_at_once(call: Caller) -> None:
    call.speech(800)
    call.silence(600)
    assert call.understood("hello") == [turn.Think(1, "hello", keep=False), turn.Commit(1)]


def test_without_speculation_nothing_is_prepared_before_the_end_of_the_turn() -> None:
    call = Caller(speculates=False)
    call.speech(800)
    assert kinds(call.silence(96)) == [turn.Transcribe]
    assert call.understood("hello") == []
    assert kinds(call.silence(384)) == [turn.Think, turn.Commit]


def test_a_sentence_that_sounds_unfinished_is_waited_for_and_thought_about_later(call: Caller) -> None:
    call.speech(800)
    call.silence(96)
    assert call.understood("I would like to", UNFINISHED_MS) == []
    assert call.silence(288) == []
    assert kinds(call.silence(32)) == [turn.Think], "600 ms before it would be over"
    assert kinds(call.silence(560)) == []
    assert kinds(call.silence(32)) == [turn.Commit]


def test_a_voice_that_sounds_finished_shortens_the_wait_and_one_that_does_not_lengthens_it(call: Caller) -> None:
    call.speech(800)
    call.silence(192)
    call.understood("hello", UNFINISHED_MS)
    assert kinds(call.on(turn.Judged(1, 192))) == [turn.Think, turn.Commit]
    call.on(turn.FirstFrame(1))
    call.on(turn.ReplyOver(1))
    call.speech(800)
    call.silence(192)
    assert kinds(call.understood("hello", 480)) == [turn.Think]
    assert call.on(turn.Judged(1, 100)) == [], "of another pause"
    assert call.on(turn.Judged(2, UNFINISHED_MS)) == []
    assert call.silence(768) == []
    assert kinds(call.silence(64)) == [turn.Commit]


def test_the_end_of_speech_is_told_not_the_end_of_the_wait(call: Caller) -> None:
    call.speech(800)
    ended_ms = call.at_ms
    (request,) = call.silence(96)
    assert isinstance(request, turn.Transcribe)
    assert request.speech_ended_ms == ended_ms


def test_speech_that_goes_on_throws_the_preparation_away_and_joins_the_same_utterance(call: Caller) -> None:
    call.speech(500)
    call.silence(128)
    call.understood("only the first half")
    stale = call.turn.take
    assert call.speech(300) == [turn.Cancel(1, Why.WENT_ON)]
    assert call.state() is State.HEARING
    (again,) = call.silence(96)
    assert isinstance(again, turn.Transcribe)
    assert again.utterance == 1
    assert call.on(turn.Transcribed(stale, "only the first half", ENDPOINT_MS)) == []
    assert call.understood("both halves") == [turn.Think(2, "both halves", keep=False, speculative=True)]


def test_a_pause_whose_words_are_not_known_yet_is_forgotten_when_speech_goes_on(call: Caller) -> None:
    call.speech(500)
    call.silence(128)
    assert call.speech(300) == [turn.DropTake(1)]


def test_speech_that_goes_on_before_the_reply_is_heard_cancels_it(call: Caller) -> None:
    call.ask()
    assert call.speech(300) == [turn.Cancel(1, Why.WENT_ON)]
    call.silence(96)
    assert call.understood("the whole of it")[0] == turn.Think(2, "the whole of it", keep=False, speculative=True)


def test_one_noisy_window_delays_the_commit_and_cancels_nothing(call: Caller) -> None:
    call.speech(800)
    call.silence(128)
    call.understood("hello")
    assert call.speech(32) == []
    assert call.silence(448) == []
    assert call.silence(32) == [turn.Commit(1)]


def test_preparing_is_given_up_where_callers_mostly_go_on_and_comes_back() -> None:
    call = Caller()
    prepared = []
    for _ in range(12):
        call.speech(500)
        call.silence(128)
        prepared += [bool(call.understood("and then"))]
    assert prepared[0]
    assert not prepared[-1]
    for _ in range(6):
        call.silence(480)
        call.on(turn.FirstFrame(call.turn.generation))
        call.on(turn.ReplyOver(call.turn.generation))
        call.speech(500)
        call.silence(128)
        prepared += [bool(call.understood("that is all"))]
    assert prepared[-1]


def test_a_click_is_no_utterance(call: Caller) -> None:
    assert call.speech(32) == []
    call.silence(600)
    assert kinds(call.speech(96)) == [turn.OpenUtterance]
    assert kinds(call.silence(1300)) == [turn.DropUtterance]
    assert call.state() is State.LISTENING


def test_an_utterance_without_words_is_kept_for_a_while_and_dropped(call: Caller) -> None:
    call.speech(800)
    call.silence(128)
    assert call.understood("") == []
    assert kinds(call.silence(1200)) == [turn.DropUtterance]
    assert call.state() is State.LISTENING


# The caller makes a sound while the agent speaks


def test_barge_in_holds_at_once_and_cancels_when_it_lasts(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    assert kinds(call.speech(64)) == [turn.Hold, turn.OpenUtterance]
    assert call.state() is State.INTERRUPTED
    assert call.speech(576) == [turn.Cancel(1, Why.BARGE_IN)]
    assert call.state() is State.HEARING
    assert kinds(call.silence(96)) == [turn.Transcribe]


def test_a_cough_over_the_reply_resumes_it(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    call.speech(128)
    assert kinds(call.silence(320)) == [turn.Resume, turn.DropUtterance]
    assert call.state() is State.SPEAKING


def test_a_backchannel_is_let_through(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    call.speech(384)
    assert kinds(call.silence(96)) == [turn.Transcribe]
    assert call.understood("Mm-hmm.") == []
    assert kinds(call.silence(224)) == [turn.Resume, turn.DropUtterance]
    assert call.state() is State.SPEAKING


def test_what_begins_as_a_backchannel_may_go_on(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    call.speech(384)
    call.silence(96)
    call.understood("Okay.")
    assert call.speech(192) == []
    assert kinds(call.silence(96)) == [turn.Transcribe]
    assert kinds(call.understood("Okay, but wait.")) == [turn.Cancel, turn.Think]


def test_a_short_word_that_wants_the_floor_gets_it_and_is_answered(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    call.speech(384)
    call.silence(96)
    assert call.understood("Stop.") == [
        turn.Cancel(1, Why.BARGE_IN),
        turn.Think(2, "Stop.", keep=False, speculative=True),
    ]
    assert call.state() is State.DECIDING
    assert call.silence(384) == [turn.Commit(2)]


def test_a_burst_whose_words_never_come_was_meant(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    call.speech(384)
    call.silence(1100)
    assert call.silence(128) == [turn.Cancel(1, Why.BARGE_IN)]
    assert kinds(call.understood("Wait.")) == [turn.Think, turn.Commit]


def test_a_reply_that_ends_while_held_leaves_the_floor_to_the_caller(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    call.speech(128)
    assert call.on(turn.ReplyOver(1)) == []
    call.speech(300)
    assert kinds(call.silence(96)) == [turn.Transcribe]


def test_typed_text_takes_the_floor_and_is_kept(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    assert call.on(turn.Written("stop")) == [
        turn.Cancel(1, Why.REPLACED),
        turn.Think(2, "stop", keep=True),
        turn.Commit(2),
    ]


# Workers fail


def test_a_reply_that_fails_is_asked_for_again(call: Caller) -> None:
    call.ask()
    assert call.on(turn.Failed(1)) == [
        turn.Cancel(1, Why.FAILED),
        turn.Think(2, "what time is it", keep=False),
        turn.Commit(2),
    ]
    call.hear_reply()
    assert call.on(turn.Failed(2)) == [
        turn.Cancel(2, Why.FAILED),
        turn.Think(3, "what time is it", keep=True),  # its utterance is no longer collected
        turn.Commit(3),
    ]
    assert call.state() is State.THINKING


def test_a_preparation_that_fails_is_repeated_when_the_turn_is_over_and_no_sooner(call: Caller) -> None:
    call.speech(800)
    call.silence(128)
    call.understood("hello")
    assert call.on(turn.Failed(1)) == [turn.Cancel(1, Why.FAILED)]
    assert call.silence(320) == []
    assert call.silence(32) == [turn.Think(2, "hello", keep=False), turn.Commit(2)]


def test_an_announcement_that_fails_is_said_again(call: Caller) -> None:
    call.on(turn.Announced("welcome"))
    assert call.on(turn.Failed(1)) == [turn.Cancel(1, Why.FAILED), turn.Say(2, "welcome"), turn.Commit(2)]


def test_a_held_reply_that_fails_is_asked_for_again_after_a_false_alarm(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    call.speech(128)
    assert call.on(turn.Failed(1)) == []
    assert kinds(call.silence(320)) == [turn.DropUtterance, turn.Cancel, turn.Think, turn.Commit]


def test_a_reply_that_always_fails_is_given_up(call: Caller) -> None:
    call.ask()
    actions: list[turn.Action] = []
    for generation in range(1, 2 + turn.MAX_REDOS):
        actions = call.on(turn.Failed(generation))
    assert kinds(actions) == [turn.Cancel, turn.DropUtterance, turn.GiveUp]
    assert call.state() is State.LISTENING


# Ends


def test_events_of_an_old_generation_change_nothing(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    call.speech(700)
    for stale in (turn.FirstFrame(1), turn.ReplyOver(1), turn.Failed(1)):
        assert call.on(stale) == []
    assert call.state() is State.HEARING


def test_an_endless_utterance_is_answered(call: Caller) -> None:
    actions = call.speech(61_000)
    assert kinds(actions) == [turn.OpenUtterance, turn.Transcribe]
    assert call.speech(1000) == []
    assert call.understood("and so on") == [turn.Think(1, "and so on", keep=False), turn.Commit(1)]


def test_nothing_happens_after_the_end(call: Caller) -> None:
    call.ask()
    call.hear_reply()
    assert call.on(turn.Ended()) == [turn.Cancel(1, Why.ENDED)]
    assert call.speech(1000) == []
    assert call.on(turn.Written("hello?")) == []
