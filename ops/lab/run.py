"""A run of the lab: its calls, and what was measured of each turn."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from daemons.settings import Settings
from ops.lab import gates
from ops.lab.callers import Voice
from ops.lab.calls import Dialled, RecordedTurn, dial_case
from ops.lab.cases import Case
from ops.lab.measures import Measures, measure
from ops.lab.recorder import path_ms
from ops.lab.signals import signal_of
from ops.lab.trends import Trends, trends
from ops.private_box import PrivateBox

VoiceOf = Callable[[Settings, Case], Awaitable[Voice]]


@dataclass(frozen=True, slots=True)
class Judged:
    recorded: RecordedTurn
    measures: Measures  # nothing found where the speech worker kept nothing
    trends: Trends

    @property
    def captured(self) -> bool:
        return self.measures.active_dbfs >= gates.limit_of("active_dbfs")

    @property
    def lacks(self) -> tuple[str, ...]:
        """What the answer does not have that it must."""
        wanted, words = self.recorded.has, self.recorded.turn.answer.lower()
        return () if not wanted or any(word in words for word in wanted) else wanted


@dataclass(frozen=True, slots=True)
class Run:
    """`path_ms`: how much later the recorder hears what LiveKit was given, by chirps before the first call."""

    dialled: list[Dialled]
    turns: list[Judged]
    path_ms: Sequence[float]

    @property
    def failures(self) -> list[str]:
        return [f"{one.case.name}: {why}" for one in self.dialled for why in one.failures]


async def run(
    cases: Sequence[Case],
    times: int,
    voice_of: VoiceOf,
    *,
    llm_model: str,
    on_case: Callable[[int], None],
    on_end: Callable[[PrivateBox], None],
) -> Run:
    """All cases, so many times, in calls to a box of the run's own, which `on_end` is shown before it is gone.

    Raises StepFailed, or Unavailable when nothing can be said.
    """
    dialled: list[Dialled] = []
    with PrivateBox(slots=max(case.calls for case in cases), llm_model=llm_model) as box:
        heard_after_ms = await path_ms(box.settings)
        for number in range(1, times + 1):
            for case in cases:
                box.write_persona(**({} if case.max_sentences is None else {"max_sentences": case.max_sentences}))
                voice = await voice_of(box.settings, case)
                dialled.append(await dial_case(box.settings, voice, f"-r{number}" if times > 1 else ""))
                on_case(1)
        on_end(box)
    return judge(dialled, heard_after_ms)


def judge(dialled: list[Dialled], heard_after_ms: Sequence[float] = ()) -> Run:
    turns = [recorded for one in dialled for call in one.calls for recorded in call.turns]
    return Run(dialled, [judged(recorded) for recorded in turns], heard_after_ms)


def judged(recorded: RecordedTurn) -> Judged:
    return Judged(recorded, _measured(recorded), trends(recorded.heard, recorded.turn.answer, recorded.words))


def _measured(recorded: RecordedTurn) -> Measures:
    if recorded.said is None:
        return Measures.nothing_found()
    return measure(signal_of(recorded.said), signal_of(recorded.heard))
