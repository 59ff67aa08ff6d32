"""The folder of a run: what its verdict rests on, so that the report can be made from it alone, also later.

report.json     the verdict, and the turns by their names
versions.json   what the run was made with
logs/           of the programs of the box that was dialled
<turn>/         asked.wav, over.wav (what was said over the answer), said.wav (where the speech worker kept it),
                heard.wav, turn.json
"""

import json
import math
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from daemons.audio import Pcm, read_wav, wav_bytes
from daemons.errors import BadRequest
from ops.caller import Turn
from ops.figures import Report, write_json
from ops.lab import advice, gates, verdict
from ops.lab.run import Judged
from ops.lab.trends import Trends
from ops.lab.versions import versions
from ops.private_box import PrivateBox

KEPT_RUNS = 30
BASELINE = "baseline"  # a file of this name in its folder, and a run is never pruned
LOG_BYTES = 2**20  # the end of each


@dataclass(frozen=True, slots=True)
class Box:
    """What is told of the box that was dialled; it is gone when the run is over."""

    versions: dict[str, Any]
    logs: dict[str, bytes]

    @classmethod
    def of(cls, box: PrivateBox) -> Self:
        logs = sorted((box.var_dir / "log").glob("*.log"))
        return cls(versions(box.settings), {log.name: log.read_bytes()[-LOG_BYTES:] for log in logs})


class Over(BaseModel):
    """A sound over the answer, so long after its beginning, and whether that was to end for it."""

    at_s: float
    yields: bool


class TurnFacts(BaseModel):
    """turn.json. `missed` are names in ADVICE; a measure is None where it could not be taken."""

    name: str
    call: str
    case: str
    fault: str | None  # that was put into it
    missed: list[str]
    measures: dict[str, float | None]
    trends: Trends
    has: tuple[str, ...]
    over: Over | None
    turn: Turn


@dataclass(frozen=True, slots=True)
class KeptTurn:
    facts: TurnFacts
    asked: Pcm
    over: Pcm | None
    said: Pcm | None
    heard: Pcm


@dataclass(frozen=True, slots=True)
class Run:
    folder: Path
    report: dict[str, Any]  # a Report's data, `when` (UTC) and the names of its `turns`
    versions: dict[str, Any]
    turns: list[KeptTurn]


def new_folder(runs_dir: Path) -> Path:
    """The name of one that is not there yet."""
    return runs_dir / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def want_free(folder: Path) -> None:
    """Raises BadRequest where there is something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadRequest(f"{folder} is there already; name a folder that is not")


def write(folder: Path, judged: Sequence[Judged], report: Report, box: Box) -> None:
    """All of it, or nothing that is seen."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
        whole = Path(place) / folder.name
        (whole / "logs").mkdir(parents=True)
        for one in judged:
            _write_turn(whole / one.recorded.name, one)
        for name, log in box.logs.items():
            (whole / "logs" / name).write_bytes(log)
        write_json(whole / "versions.json", box.versions)
        taken = {"when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "turns": [one.recorded.name for one in judged]}
        write_json(whole / "report.json", report.as_data() | taken)
        whole.replace(folder)


def read(folder: Path) -> Run:
    """Raises BadRequest when it is no run, or one whose files this version cannot read."""
    try:
        report, versions = (json.loads((folder / f"{name}.json").read_bytes()) for name in ("report", "versions"))
        return Run(folder, report, versions, [_read_turn(folder / name) for name in report["turns"]])
    except FileNotFoundError as error:
        raise BadRequest(f"{folder} is no run of the lab: {error.filename} is missing") from error
    except (KeyError, ValueError) as error:
        wrong = error.errors()[0]["loc"] if isinstance(error, ValidationError) else error
        raise BadRequest(f"{folder}: this version cannot read that run ({wrong})") from error


def kept(runs_dir: Path) -> list[Path]:
    """The folders of the runs that are kept, the oldest first."""
    return sorted(place.parent for place in runs_dir.glob("[0-9]*/report.json"))


def baseline(runs_dir: Path) -> Path | None:
    """The folder of the run that others are compared with."""
    return next((folder for folder in kept(runs_dir) if (folder / BASELINE).exists()), None)


def set_baseline(runs_dir: Path, folder: Path) -> None:
    """There is one: what was one before is none any more."""
    for other in kept(runs_dir):
        (other / BASELINE).unlink(missing_ok=True)
    (folder / BASELINE).touch()


def before(run: Run, runs_dir: Path) -> list[dict[str, Any]]:
    """The reports of runs of the same turns, the oldest first."""
    reports = [json.loads((folder / "report.json").read_bytes()) for folder in kept(runs_dir)]
    return [
        report
        for report in sorted(reports, key=lambda report: str(report["when"]))
        if report["when"] < run.report["when"] and set(report["turns"]) == set(run.report["turns"])
    ]


def prune(runs_dir: Path, keep: int = KEPT_RUNS) -> None:
    """Remove all runs but the newest, and those that hold a file BASELINE."""
    for folder in kept(runs_dir)[:-keep]:
        if not (folder / BASELINE).exists():
            shutil.rmtree(folder.rename(folder.with_name(f".{folder.name}")))


def _write_turn(folder: Path, one: Judged) -> None:
    folder.mkdir()
    recorded, interruption = one.recorded, one.recorded.interruption
    over = None if interruption is None else interruption.sound
    for name, pcm in (("asked", recorded.asked), ("over", over), ("said", recorded.said), ("heard", recorded.heard)):
        if pcm is not None:
            (folder / f"{name}.wav").write_bytes(wav_bytes(pcm))
    facts = TurnFacts(
        name=recorded.name,
        call=recorded.call,
        case=recorded.case.name,
        fault=recorded.case.fault,
        missed=_missed(one),
        trends=one.trends,
        has=recorded.has,
        over=None if interruption is None else Over(at_s=interruption.at_s, yields=interruption.wanted),
        measures={name: value if math.isfinite(value) else None for name, value in asdict(one.measures).items()},
        turn=recorded.turn,
    )
    (folder / "turn.json").write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _read_turn(folder: Path) -> KeptTurn:
    over, said = (folder / f"{name}.wav" for name in ("over", "said"))
    return KeptTurn(
        TurnFacts.model_validate_json((folder / "turn.json").read_bytes()),
        read_wav(folder / "asked.wav"),
        read_wav(over) if over.exists() else None,
        read_wav(said) if said.exists() else None,
        read_wav(folder / "heard.wav"),
    )


def _missed(one: Judged) -> list[str]:
    """Which gates this turn alone would miss, by their names in ADVICE."""
    turn, interruption = one.recorded.turn, one.recorded.interruption
    if (fault := one.recorded.case.fault) is not None:
        return [] if verdict.is_found(one) else [verdict.not_found(fault)]
    is_missed = {
        **{advice.of_measure(gate.measure): gate.fires(one.measures) for gate in gates.GATES},
        "answers found in the recording": not one.captured,
        "answers as made by the speech worker": one.recorded.said is None,
        "end of speech → first audio heard": _over(turn.eot_to_first_audio_ms, gates.EOT_TO_FIRST_AUDIO_P95_MS),
        "first audio made → sent": _over(turn.tts_first_to_publish_ms, gates.FIRST_TO_PUBLISH_P95_MS),
        "answers without the word that they must have": bool(one.lacks),
        "callers cut off in mid-sentence": turn.cut_off,
    }
    if interruption is not None:
        is_missed |= {
            "sounds that came when the answer was over": not interruption.in_time,
            "answers ended by a cough or an okay": interruption.ended and not interruption.wanted,
            "interruptions that did not end the answer": interruption.wanted and not interruption.ended,
            "interruption → silence heard": interruption.wanted
            and _over(interruption.silence_ms, gates.YIELDS_WITHIN_MS),
        }
    return [name for name, missed in is_missed.items() if missed]


def _over(value_ms: float | None, limit_ms: float) -> bool:
    """Also what could not be measured."""
    return value_ms is None or value_ms > limit_ms
