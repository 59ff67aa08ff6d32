"""What a drill may find."""

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    CROWD = "crowds in which not exactly one was refused cleanly, or another was harmed"
    ANSWER = "clients that were told of a failure, or nothing at all"
    LEFT = "work, places, leases, connections, files, tasks or threads that are left of clients that went away"
    CHANGED = "doors that do not answer as before"
    LOG = "errors in the workers' logs"
    COUNT = "metrics that contradict what clients did"


@dataclass(frozen=True, slots=True)
class Wrong:
    rule: Rule
    where: str
    words: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.where}: {self.words}"
