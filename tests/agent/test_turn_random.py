"""A million random events through the turn machine, and what must hold whatever comes."""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from daemons.agent import turn
from daemons.agent.said import Said, Spoken
from daemons.agent.turn import State, Turn

EVENTS = 1_000_000
WINDOW_MS = 32.0
WORDS: list[Said] = ["", "words", "words", "yeah", Spoken.of(np.zeros(16_000, np.int16))]


class Watcher:
    """Holds a machine to its promises, action by action."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.at_ms = 0.0
        self.live: int | None = None  # the reply that is prepared or heard
        self.committed = False
        self.held = False
        self.open: int | None = None  # the utterance
        self.pending: int | None = None  # the take whose words are not known

    def on(self, event: turn.Event) -> list[turn.Action]:
        before, speculative = self.turn.state, self.live is not None and not self.committed
        if isinstance(event, turn.Transcribed) and event.take == self.pending:
            self.pending = None
        if isinstance(event, turn.ReplyOver) and event.generation == self.live and self.committed:
            self.live, self.held = None, False
        actions = self.turn.on(event)
        assert before is not State.ENDING or not actions, "something is done after the end"
        for action in actions:
            self._check(action)
        after = self.turn.state
        assert self.turn.replying == (self.live is not None)
        if after in (State.THINKING, State.SPEAKING, State.INTERRUPTED):
            assert self.live is not None
            assert self.committed, "what is heard was not committed"
        if after in (State.LISTENING, State.HEARING):
            assert self.live is None, "a reply lives on, unheard"
            assert not speculative or self.live is None, "what was prepared was neither committed nor cancelled"
        assert self.held == (after is State.INTERRUPTED)
        assert (self.open is not None) == (after in (State.HEARING, State.DECIDING, State.INTERRUPTED)) or (
            after is State.THINKING
        ), "an utterance is collected in vain, or not collected"
        return actions

    def _check(self, action: turn.Action) -> None:
        match action:
            case turn.Think(generation) | turn.Say(generation):
                assert self.live is None, "two replies at once"
                self.live, self.committed, self.held = generation, False, False
            case turn.Commit(generation):
                assert (generation, self.committed) == (self.live, False)
                self.committed = True
            case turn.Cancel(generation):
                assert generation == self.live, "a cancel of what does not live"
                self.live, self.held = None, False
            case turn.Hold(generation):
                assert (generation, self.held) == (self.live, False)
                self.held = True
            case turn.Resume(generation):
                assert (generation, self.held) == (self.live, True)
                self.held = False
            case turn.OpenUtterance(utterance):
                assert self.open is None, "two utterances at once"
                self.open = utterance
            case turn.DropUtterance(utterance):
                assert utterance == self.open
                assert self.pending is None, "a take outlives its utterance"
                self.open = None
            case turn.Transcribe(take, utterance):
                assert (utterance, self.pending) == (self.open, None)
                self.pending = take
            case turn.DropTake(take):
                assert take == self.pending
                self.pending = None

    def audio(self, windows: int, *, speech: bool) -> None:
        for _ in range(windows):
            self.at_ms += WINDOW_MS
            self.on(turn.Window(self.at_ms, speech))


def random_events(rng: random.Random, watcher: Watcher, rare: float = 0.25) -> Iterator[turn.Event]:
    """Of a stretch of audio, or of one thing that happens; mostly what belongs to what is going on.

    `rare`: the share of what seldom happens.
    """
    machine = watcher.turn
    if rng.random() < 0.6:
        speech = rng.random() < 0.5
        for _ in range(rng.choice([1, 2, 3, 5, 9, 14, 20, 40])):
            watcher.at_ms += WINDOW_MS
            yield turn.Window(watcher.at_ms, speech)
        return
    if rng.random() < 0.05:
        for _ in range(rng.randint(1, 2 + turn.MAX_REDOS)):
            yield turn.Failed(machine.generation)
        return
    generation = machine.generation + rng.choice([0, 0, 0, 0, -1, 1])
    words = rng.choice(WORDS)
    yield rng.choice(
        [
            turn.Transcribed(machine.take + rng.choice([0, 0, 0, -1, 1]), words, rng.choice([200, 480, 1000])),
            turn.Judged(machine.take + rng.choice([0, 0, -1, 1]), rng.choice([200, 480, 1000])),
            turn.FirstFrame(generation),
            turn.FirstFrame(generation),
            turn.ReplyOver(generation),
            turn.Failed(generation) if rng.random() < rare else turn.ReplyOver(generation),
            turn.Written("typed") if rng.random() < rare else turn.FirstFrame(generation),
            turn.Announced("announced") if rng.random() < rare else turn.ReplyOver(generation),
        ]
    )


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_a_million_random_events() -> None:
    rng = random.Random(20261122)
    watcher, events, seen = Watcher(), 0, set()
    while events < EVENTS:
        for event in random_events(rng, watcher):
            seen.add((watcher.turn.state, type(event)))
            watcher.on(event)
            events += 1
        if rng.random() < 0.001:
            returns_to_listening(watcher)
        if rng.random() < 0.0002:
            watcher.on(turn.Ended())
            assert watcher.live is None
            assert watcher.open is None
            watcher = Watcher()
    assert {state for state, _ in seen} == set(State) - {State.ENDING}
    assert len(seen) == 6 * 8, "each state meets each event"


def returns_to_listening(watcher: Watcher) -> None:
    """When the caller is silent, words come and the reply is played to its end."""
    watcher.audio(60, speech=False)
    watcher.on(turn.Transcribed(watcher.turn.take, "words", 480))
    watcher.audio(60, speech=False)
    watcher.on(turn.FirstFrame(watcher.turn.generation))
    watcher.on(turn.ReplyOver(watcher.turn.generation))
    assert watcher.turn.state is State.LISTENING
