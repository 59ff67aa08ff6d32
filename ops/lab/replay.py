"""What a caller said in a call that was kept, once more."""

from daemons.audio import Pcm
from daemons.errors import BadRequest
from ops.lab.callers import Piece, Voice
from ops.lab.cases import Case, Line, Over, Played, cases
from ops.lab.evidence import Run
from ops.robot import RATE_HZ


def replayed(run: Run, call: str) -> Voice:
    """Each line is said when the answer to the last was heard out; in the same noise. Raises BadRequest."""
    turns = [turn for turn in run.turns if turn.facts.call == call]
    if not turns:
        there = ", ".join(dict.fromkeys(turn.facts.call for turn in run.turns))
        raise BadRequest(f"{run.folder.name} has no call {call}; it has {there}")
    made: dict[Piece, Pcm] = {}
    lines: list[Line] = []
    left = enumerate(turns)
    for number, turn in left:
        made[asked := Played(sound=f"asked-{number}")] = turn.asked.resampled(RATE_HZ)
        over = None
        if turn.facts.over is not None and turn.over is not None:
            made[sound := Played(sound=f"over-{number}")] = turn.over.resampled(RATE_HZ)
            yields, answers = turn.facts.over.yields, None
            if yields:
                answers = next(left, None)  # the turn after it answers the interruption
            has = () if answers is None else answers[1].facts.has
            over = Over(at_s=turn.facts.over.at_s, say=(sound,), yields=yields, has=has)
        lines.append(Line(say=(asked,), has=turn.facts.has, over=over))
    return Voice(_like(turns[0].facts.case, call, lines), made)


def _like(name: str, call: str, lines: list[Line]) -> Case:
    """What surrounds a call of that case, where it is still known; levels and voice are in what was said."""
    known = next((case for case in cases().case if case.name == name), None)
    return Case(
        name=f"replay-{call}",
        suites=(),
        noise_snr_db=known and known.noise_snr_db,
        max_sentences=known and known.max_sentences,
        lines=tuple(lines),
    )
