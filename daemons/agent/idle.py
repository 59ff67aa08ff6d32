"""What the agent does when the caller says nothing for long: ask once, say goodbye, end the call."""

from typing import Literal

ANSWER_S = 15.0  # how long the question is given

Step = Literal["ask", "goodbye", "end"]
_STEPS: tuple[Step, ...] = ("ask", "goodbye", "end")


class Idle:
    def __init__(self, idle_s: float, now_s: float) -> None:
        self._waits_s = (idle_s, min(idle_s, ANSWER_S), 0.0)
        self._since_s = now_s
        self._step = 0
        self._turns = 0

    def look(self, now_s: float, *, quiet: bool, turns: int) -> Step | None:
        """The step whose time has come. `turns`: how often the caller has said something; more of them begin anew."""
        if turns != self._turns:
            self._turns, self._step = turns, 0
        if not quiet:
            self._since_s = now_s
        if self._step == len(_STEPS) or not quiet or now_s - self._since_s < self._waits_s[self._step]:
            return None
        self._since_s = now_s
        self._step += 1
        return _STEPS[self._step - 1]
