"""The table of the turn machine in ARCHITECTURE.md is what the machine does."""

import random
import re
from collections import defaultdict
from typing import get_args

import pytest

from daemons.agent import turn
from daemons.settings import ROOT
from tests.agent.test_turn_random import Watcher, random_events

STRETCHES = 150_000

BEGINS, ENDS = "<!-- turn table -->\n", "<!-- end of turn table -->"


def table() -> str:
    """A row for each state and event that may do something: the actions that it may bring, and the states after it."""
    rng = random.Random(3)
    watcher = Watcher()
    actions: dict[tuple[str, str], set[str]] = defaultdict(set)
    states: dict[tuple[str, str], set[str]] = defaultdict(set)
    for _ in range(STRETCHES):
        for event in random_events(rng, watcher, rare=0.9) if rng.random() > 0.01 else [turn.Ended()]:
            before = watcher.turn.state
            done = watcher.on(event)
            if before is turn.State.ENDING:
                continue
            row = before.value, type(event).__name__
            actions[row] |= {type(action).__name__ for action in done}
            if done or watcher.turn.state is not before:
                states[row].add(watcher.turn.state.value)
        if watcher.turn.state is turn.State.ENDING:
            watcher = Watcher()
    order = {name: index for index, name in enumerate([*turn.State])}
    kinds = [kind.__name__ for kind in get_args(turn.Event)]
    rows = ["| in | on | may do | and be in |", "|---|---|---|---|"]
    for state, kind in sorted(states, key=lambda row: (order[turn.State(row[0])], kinds.index(row[1]))):
        what = ", ".join(sorted(actions[state, kind])) or "–"
        after = ", ".join(sorted(states[state, kind], key=lambda name: order[turn.State(name)]))
        rows.append(f"| {state} | {kind} | {what} | {after} |")
    return "\n".join(rows) + "\n"


@pytest.mark.integration
def test_the_table_in_the_architecture_is_what_the_machine_does() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    found = re.search(f"{BEGINS}(.*?){ENDS}", text, re.DOTALL)
    assert found is not None
    made = table()
    assert found[1] == made, f"write this between the marks:\n{made}"
