"""What came last, for who must find out why registry and model do not agree."""

from collections import deque
from dataclasses import dataclass

from ops.drill.registry.clients import Op

TOLD = 25  # operations


class Failed(Exception):
    """The registry is not what it should be; says where, and what came before."""


@dataclass
class _Told:
    number: int
    now_ms: int
    op: Op
    answer: object = "?"

    def __str__(self) -> str:
        return f"{self.number:>9}  at {self.now_ms}  {self.op} → {self.answer}"


class Story:
    def __init__(self) -> None:
        self._told = deque[_Told](maxlen=TOLD)

    def ask(self, number: int, now_ms: int, op: Op) -> None:
        self._told.append(_Told(number, now_ms, op))

    def answered(self, answer: object) -> None:
        self._told[-1].answer = answer

    def failed(self, error: Exception) -> Failed:
        before = "\n".join(map(str, self._told))
        return Failed(f"{before}\n\noperation {self._told[-1].number}: {error}")
