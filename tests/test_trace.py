import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from daemons import trace
from daemons.clock import FakeClock
from daemons.trace import Trace


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000)


def events_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_event_is_a_line_with_its_time(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "traces" / "call-1.jsonl"
    with Trace(path, clock) as written:
        written.emit("stt_final", text="早上好", audio_ms=420.5)
        written.emit("user_stopped", at_ns=700)
    assert events_in(path) == [
        {"event": "stt_final", "t_ns": 1_000, "text": "早上好", "audio_ms": 420.5},
        {"event": "user_stopped", "t_ns": 700},
    ]
    assert "早上好" in path.read_text(encoding="utf-8"), "people read traces too"


def test_an_event_can_be_read_while_the_call_goes_on(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "call.jsonl"
    with Trace(path, clock) as written:
        written.emit("user_started")
        assert events_in(path) == [{"event": "user_started", "t_ns": 1_000}]


def test_what_was_there_before_stays(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "call.jsonl"
    for name in ("user_started", "user_stopped"):
        with Trace(path, clock) as written:
            written.emit(name)
    assert [event["event"] for event in events_in(path)] == ["user_started", "user_stopped"]


def test_a_listener_hears_each_event(tmp_path: Path, clock: FakeClock) -> None:
    heard: list[dict[str, Any]] = []
    with Trace(tmp_path / "call.jsonl", clock, heard.append) as written:
        written.emit("barge_in", generation=3)
    assert heard == [{"event": "barge_in", "t_ns": 1_000, "generation": 3}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_costs_the_trace_and_is_said_once(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[dict[str, Any]] = []
    with caplog.at_level(logging.WARNING), Trace(Path("/dev/full"), clock, heard.append) as written:
        for _ in range(5):
            written.emit("user_started")
    assert len(heard) == 5, "who listens still hears"
    said = [record.message for record in caplog.records if "cannot be written" in record.message]
    assert len(said) == 1
    assert "No space left" in said[0]


def test_a_folder_that_cannot_be_made_costs_the_trace(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "traces").write_text("a file in the folder's place")
    with Trace(tmp_path / "traces" / "call.jsonl", clock) as written:
        written.emit("user_started")
    assert "no trace for this call" in caplog.text


def test_a_trace_ends_at_its_limit_in_bytes(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trace, "MAX_BYTES", 1_000)
    path = tmp_path / "call.jsonl"
    with Trace(path, clock) as written:
        for _ in range(100):
            written.emit("stt_final", text="话" * 50)  # 150 bytes
    assert 1_000 <= path.stat().st_size < 1_250
    assert len(events_in(path)) == len(path.read_bytes().splitlines()), "the last line is whole"
    assert "has reached 1000 bytes" in caplog.text


def test_a_text_that_is_no_unicode_does_not_end_the_call(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "call.jsonl"
    with Trace(path, clock) as written:
        written.emit("llm_first_token", text="half a letter: \ud83d")
    assert events_in(path)[0]["text"] == "half a letter: ?"


def test_only_the_newest_traces_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"call-{number}.jsonl"
        path.write_text("{}\n", encoding="utf-8")
        os.utime(path, (number, number))
    trace.prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["call-3.jsonl", "call-4.jsonl"]
    trace.prune(tmp_path / "not there", keep=2)
