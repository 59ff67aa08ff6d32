"""What a run leaves: all of it, or nothing that looks like a run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr

from daemons.audio import Pcm
from daemons.errors import BadRequest
from daemons.settings import Settings
from ops.lab import evidence
from ops.lab.measures import Measures
from ops.lab.run import Judged, judged
from ops.lab.versions import versions
from tests.lab.kept_runs import BOX, good, keep, spoilt, traced
from tests.speech_samples import needs_librivox

pytestmark = needs_librivox


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    turns = [good(), spoilt("gap")]
    run = evidence.read(keep(tmp_path / "run", *turns))
    assert run.versions == BOX.versions
    assert not run.report["ok"]
    assert run.report["turns"] == ["france-1", "spoilt-1"]
    for kept, one in zip(run.turns, turns, strict=True):
        assert kept.said is not None
        assert one.recorded.said is not None
        assert np.array_equal(kept.said.samples, one.recorded.said.samples)
        assert np.array_equal(kept.heard.samples, one.recorded.heard.samples)
        assert kept.heard.rate_hz == one.recorded.heard.rate_hz
        assert kept.facts.turn == one.recorded.turn
        assert kept.facts.measures["mel_distance_db"] == one.measures.mel_distance_db
    assert [kept.facts.missed for kept in run.turns] == [[], ["longest gap", "dropout"]]
    assert (tmp_path / "run/logs/agent.log").read_bytes() == b"it spoke\n"


def test_what_was_not_kept_or_measured_is_said_to_be_missing(tmp_path: Path) -> None:
    recorded = good(of=traced(first_audio_ms=None)).recorded
    unkept = judged(replace(recorded, said=None))
    kept = evidence.read(keep(tmp_path / "run", unkept)).turns[0]
    assert kept.said is None
    assert set(kept.facts.measures.values()) == {None}
    assert kept.facts.missed == [
        "answers found in the recording",
        "answers as made by the speech worker",
        "end of speech → first audio heard",
    ]


def test_a_write_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    whole = good()
    broken = replace(whole.recorded, name="france-2", heard=Pcm(None, 24_000))  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        keep(tmp_path / "lab/run", whole, Judged(broken, Measures.nothing_found(), whole.trends))
    assert list((tmp_path / "lab").iterdir()) == []


def test_no_run_is_written_over(tmp_path: Path) -> None:
    folder = keep(tmp_path / "run", good())
    with pytest.raises(BadRequest, match="there already"):
        evidence.want_free(folder)
    with pytest.raises(OSError, match="not empty"):
        keep(folder, good())
    assert evidence.read(folder).report["ok"]
    (tmp_path / "empty").mkdir()
    evidence.want_free(tmp_path / "empty")


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"no run of the lab.*report.json"):
        evidence.read(tmp_path)
    folder = keep(tmp_path / "run", good())
    (folder / "france-1/turn.json").write_text('{"name": "france-1"}', encoding="utf-8")
    with pytest.raises(BadRequest, match="this version cannot read"):
        evidence.read(folder)


def test_the_newest_runs_are_kept_and_every_baseline(tmp_path: Path) -> None:
    names = [f"2026010{day}T000000Z-abcdef" for day in range(1, 6)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text("{}", encoding="utf-8")
    (tmp_path / names[0] / evidence.BASELINE).touch()
    (tmp_path / "notes").mkdir()
    evidence.prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [names[0], *names[3:], "notes"]


def test_earlier_runs_of_the_same_turns_are_found(tmp_path: Path) -> None:
    for name, case, when in (
        ("20260101T000000Z-a", "france", "2026-01-01T00:00:00Z"),
        ("20260102T000000Z-b", "spain", "2026-01-02T00:00:00Z"),
        ("20260103T000000Z-c", "france", "2026-01-03T00:00:00Z"),
        ("20260104T000000Z-d", "france", "2026-01-04T00:00:00Z"),
    ):
        path = keep(tmp_path / name, good(case)) / "report.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"when": when}), encoding="utf-8")
    found = evidence.before(evidence.read(tmp_path / "20260103T000000Z-c"), tmp_path)
    assert [report["when"] for report in found] == ["2026-01-01T00:00:00Z"]


def test_versions_tell_models_and_what_was_changed_but_no_secrets() -> None:
    box = Settings(
        llm_model="smollm2-135m",
        access_key=SecretStr("a-secret-key"),
        redis_url="redis://:hidden-word@redis.example:6379/0",
        http_port=8123,
    )
    told = versions(box)
    assert told["settings"]["llm_model"] == "smollm2-135m"
    assert told["settings"]["redis_url"] == "redis://redis.example:6379/0"
    assert "http_port" not in told["settings"]
    assert "slots" not in told["settings"]
    assert "a-secret-key" not in json.dumps(told)
    assert "hidden-word" not in json.dumps(told)
    assert told["models"]["llm_model"]["name"] == "smollm2-135m"
    assert all(len(checksum) == 64 for checksum in told["models"]["vad_model"]["sha256"].values())


def test_there_is_one_baseline_and_it_is_never_pruned(tmp_path: Path) -> None:
    one = good()
    runs = [keep(tmp_path / f"{number}", one) for number in range(4)]
    assert evidence.baseline(tmp_path) is None
    for folder in runs[:2]:
        evidence.set_baseline(tmp_path, folder)
        assert evidence.baseline(tmp_path) == folder
    evidence.prune(tmp_path, keep=1)
    assert evidence.kept(tmp_path) == [runs[1], runs[3]]
