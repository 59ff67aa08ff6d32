"""A caller who says nothing."""

from daemons.agent.idle import ANSWER_S, Idle, Step

IDLE_S = 60.0
SPOKEN_S = 2.0  # an announcement


def steps(idle: Idle, until_s: int, turns: dict[int, int] | None = None) -> list[tuple[int, Step]]:
    """What was done when, looking each second; `turns`: second → how often the caller had spoken from then on."""
    done: list[tuple[int, Step]] = []
    busy_until_s, spoken = 0.0, 0
    for second in range(1, until_s):
        spoken = (turns or {}).get(second, spoken)
        if step := idle.look(second, quiet=second >= busy_until_s, turns=spoken):
            done.append((second, step))
            busy_until_s = second + SPOKEN_S
    return done


def test_the_caller_is_asked_once_and_then_told_goodbye() -> None:
    asked, goodbye, end = steps(Idle(IDLE_S, 0), 300)
    assert asked == (60, "ask")
    assert goodbye == (61 + ANSWER_S, "goodbye")
    assert end == (goodbye[0] + SPOKEN_S, "end")


def test_an_answer_begins_anew() -> None:
    assert steps(Idle(IDLE_S, 0), 130, turns={70: 1}) == [(60, "ask"), (121, "ask")]


def test_a_call_in_which_somebody_speaks_is_not_idle() -> None:
    idle = Idle(IDLE_S, 0)
    assert [idle.look(second, quiet=second % 50 == 0, turns=0) for second in range(300)] == [None] * 300


def test_a_short_patience_is_short_for_the_answer_too() -> None:
    assert [step for _, step in steps(Idle(2, 0), 20)] == ["ask", "goodbye", "end"]
