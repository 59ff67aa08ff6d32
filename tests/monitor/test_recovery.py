"""Decisions about programs and processes, with time as an argument."""

import math

import pytest

from daemons.health import Block
from daemons.monitor import recovery
from daemons.monitor.recovery import WORDS, Change, Note, Order, Probe, Process, Program, judged
from daemons.wire import ProgramEvent

DEAD = Probe("no beat for 12.0 s", beats=False, worker="w:1", boot="b")
STUCK = Probe("1 in flight, no progress for 31.0 s", worker="w:1", boot="b")
WELL = Probe(worker="w:1", boot="b")
SILENT = Probe("no answer", answered=False)
TICK_S = 5.0

ENDED = Change("EXITED", "RUNNING")
RUNS = Change("RUNNING", "STARTING")
FATAL = Change("FATAL", "BACKOFF")
STOPPING = Change("STOPPING", "RUNNING")


def kinds(decisions: list[Note | Order]) -> list[str]:
    return [decision.kind if isinstance(decision, Note) else decision.value for decision in decisions]


def crash(program: Program, times: int, every_s: float, from_s: float = 0.0) -> list[Note | Order]:
    """The decisions of the last of these ends."""
    decisions: list[Note | Order] = []
    for i in range(times):
        decisions = program.changed(ENDED, from_s + i * every_s)
    return decisions


def starts_at(program: Program, state: str, after_s: float) -> float:
    """When a tick orders a start, infinity when none does within an hour."""
    for now_s in (after_s + i for i in range(3600)):
        if Order.START in program.tick(state, now_s):
            return now_s
    return math.inf


def stalls_at(process: Process, probes: list[Probe], every_s: float = TICK_S) -> list[float]:
    return [i * every_s for i, probe in enumerate(probes) if process.is_stalled(probe, i * every_s)]


# Programs


def test_one_that_gives_up_is_started_again_later_and_later() -> None:
    program, now_s, waits = Program("nginx"), 0.0, []
    for _ in range(6):
        assert kinds(program.changed(FATAL, now_s)) == ["program_fatal"]
        assert program.tick("FATAL", now_s + 1) == []
        at_s = starts_at(program, "FATAL", now_s)
        waits.append(at_s - now_s)
        program.changed(Change("STARTING", "FATAL"), at_s)
        now_s = at_s + 60
    assert waits == [30, 60, 120, 240, 300, 300]


def test_one_that_gave_up_before_anybody_listened_is_found() -> None:
    program = Program("nginx")
    assert kinds(program.tick("FATAL", 0)) == ["program_fatal"]
    assert program.changed(FATAL, 1) == [], "the event comes, too"
    assert starts_at(program, "FATAL", 1) == 30


def test_it_is_told_that_it_runs_again_and_its_record_is_clean_after_a_while() -> None:
    program = Program("nginx")
    program.changed(FATAL, 0)
    assert starts_at(program, "FATAL", 0) == 30
    program.changed(FATAL, 100)
    assert program.changed(FATAL, 101) == [], "told once"
    at_s = starts_at(program, "FATAL", 100)
    assert at_s == 160
    program.changed(Change("STARTING", "FATAL"), at_s)
    (note,) = program.changed(RUNS, at_s + 1)
    assert str(note) == "nginx runs again: it was started after a wait of 60 s"
    assert program.changed(RUNS, at_s + 1) == [], "told once"
    assert program.tick("RUNNING", at_s + 1 + recovery.WELL_S) == []
    program.changed(FATAL, 1000)
    assert starts_at(program, "FATAL", 1000) == 1030


def test_a_few_ends_are_no_loop() -> None:
    program = Program("tts")
    assert crash(program, 4, every_s=1) == []
    assert crash(program, 20, every_s=recovery.LOOP_WINDOW_S / 3, from_s=1000) == [], "nor are many, far apart"


def test_one_that_ends_after_minutes_of_loading_is_in_a_loop_too() -> None:
    patient, slow = Program("vllm", load_s=900.0), Program("tts")
    for program, loops in ((patient, True), (slow, False)):
        for i in range(5):
            decisions = program.changed(ENDED, 200.0 * i)
            program.changed(RUNS, 200.0 * i + 1)
            assert program.tick("RUNNING", 200.0 * i + 190) == []
        assert ("crash_loop" in kinds(decisions)) is loops
    patient = Program("vllm", load_s=900.0)
    crash(patient, 4, every_s=200)
    patient.changed(RUNS, 800)
    patient.tick("RUNNING", 800 + 900 + recovery.WELL_S)
    assert patient.changed(ENDED, 2000) == [], "it had served for a while"


def test_a_crash_loop_is_told_and_held_back_longer_and_longer() -> None:
    program, waits = Program("tts"), []
    decisions = crash(program, 5, every_s=2)
    now_s = 8.0
    for _ in range(5):
        assert kinds(decisions) == ["hold", "crash_loop"]
        assert program.held
        assert program.changed(Change("STARTING", "EXITED"), now_s) == [], "supervisord was quicker"
        assert program.changed(Change("STOPPING", "STARTING"), now_s) == []
        assert program.changed(Change("STOPPED", "STOPPING"), now_s) == []
        at_s = starts_at(program, "STOPPED", now_s)
        waits.append(at_s - now_s)
        program.changed(Change("STARTING", "STOPPED"), at_s)
        assert kinds(program.changed(RUNS, at_s + 1)) == ["program_started_again"]
        now_s = at_s + 20
        decisions = program.changed(ENDED, now_s)
    assert waits == [10, 20, 40, 60, 60]


def test_a_loop_is_over_when_it_stays_up() -> None:
    program = Program("tts")
    crash(program, 5, every_s=2)
    program.changed(Change("STARTING", "STOPPED"), 20)
    program.changed(RUNS, 21)
    assert program.tick("RUNNING", 100) == []
    assert kinds(program.tick("RUNNING", 141)) == ["crash_loop_over"]
    assert program.tick("RUNNING", 300) == [], "told once"
    assert crash(program, 4, every_s=1, from_s=400) == [], "a clean record"


def test_it_waits_for_one_that_is_slow_to_stop() -> None:
    program = Program("tts")
    crash(program, 5, every_s=2)
    assert program.tick("STOPPING", 100) == []
    assert program.tick("STOPPED", 105) == [Order.START]


def test_what_a_person_stops_stays_stopped() -> None:
    looping, given_up, started = Program("a"), Program("b"), Program("c")
    crash(looping, 5, every_s=2)
    assert starts_at(looping, "STOPPED", 8) == 18
    looping.changed(Change("STARTING", "STOPPED"), 18)
    looping.changed(STOPPING, 19)
    assert starts_at(looping, "STOPPED", 20) == math.inf
    assert crash(looping, 4, every_s=1, from_s=30) == []

    given_up.changed(FATAL, 0)
    given_up.changed(Change("STARTING", "FATAL"), 1)  # by `supervisorctl start`
    given_up.changed(STOPPING, 2)
    assert starts_at(given_up, "STOPPED", 3) == math.inf

    crash(started, 5, every_s=2)
    started.changed(Change("STARTING", "STOPPED"), 9)  # by a person, before its time
    assert not started.held
    assert starts_at(started, "RUNNING", 10) == math.inf


def test_who_stops_it_first_owns_the_stop() -> None:
    """The order to hold came too late: a person had stopped it."""
    program = Program("tts")
    crash(program, 5, every_s=2)
    program.refused(Order.HOLD, 8)
    program.changed(STOPPING, 9)
    assert starts_at(program, "STOPPED", 10) == math.inf


def test_ends_that_are_heard_of_late_change_nothing() -> None:
    """It ended a few times more before supervisord held it."""
    program = Program("tts")
    crash(program, 5, every_s=0.01)
    for change in (Change("STARTING", "EXITED"), RUNS, ENDED, Change("STARTING", "EXITED"), RUNS, ENDED):
        assert program.changed(change, 0.1) == []
    program.changed(Change("STOPPING", "RUNNING"), 0.1)
    assert starts_at(program, "STOPPED", 0.1) == pytest.approx(10, abs=1.2)


def test_a_start_that_is_refused_is_tried_again() -> None:
    program = Program("nginx")
    program.changed(FATAL, 0)
    assert starts_at(program, "FATAL", 0) == 30
    program.refused(Order.START, 30)
    assert starts_at(program, "FATAL", 30) == 90


def test_do_not_restart_me_is_obeyed() -> None:
    program = Program("stt")
    crash(program, 4, every_s=1)
    decisions = program.changed(Change("EXITED", "RUNNING", expected=True), 5)
    assert kinds(decisions) == ["program_wants_no_restart"]
    assert starts_at(program, "EXITED", 5) == math.inf


def test_what_the_listener_before_held_is_started() -> None:
    program = Program("tts")
    program.held_before(7)
    assert program.held
    assert program.tick("STOPPED", 7) == [Order.START]


# Processes


def test_no_bad_probe_alone_ends_anything() -> None:
    assert stalls_at(Process(1, 0), [WELL, DEAD, WELL] * 20) == []
    assert stalls_at(Process(1, 0), [WELL, DEAD, DEAD, WELL] * 20) == []
    assert stalls_at(Process(1, 0), [SILENT, SILENT, WELL] * 20) == []


def test_several_in_a_row_over_a_while_do_once() -> None:
    assert stalls_at(Process(1, 0), [WELL, DEAD, DEAD, DEAD, DEAD, DEAD]) == [15]
    assert stalls_at(Process(1, 0), [WELL] + [STUCK] * 30, every_s=1) == [11], "not sooner for probing more often"
    assert stalls_at(Process(1, 0), [WELL, DEAD, DEAD], every_s=60) == [], "nor on two that are far apart"


def test_silence_is_given_longer_than_a_bad_answer() -> None:
    assert stalls_at(Process(1, 0), [WELL] + [SILENT] * 30) == [35]


def test_a_newborn_may_be_silent() -> None:
    assert stalls_at(Process(1, 0), [SILENT] * 30) == [recovery.NEWBORN_S]


@pytest.mark.parametrize(("probe", "signals"), [(DEAD, ["KILL"]), (STUCK, ["TERM", None, None, None, "KILL"])])
def test_it_is_ended_at_once_when_nobody_can_move_away(probe: Probe, signals: list[str | None]) -> None:
    process = Process(1, 0)
    assert stalls_at(process, [probe] * 3) == [10]
    assert [process.signal(lambda: False, 10 + i) for i in range(len(signals))] == signals


def test_agents_have_a_bounded_while_to_move_away() -> None:
    process = Process(1, 0)
    stalls_at(process, [DEAD] * 3)
    waited = [process.signal(lambda: True, 10 + i) for i in range(11)]
    assert waited == [None] * 10 + ["KILL"]
    again = Process(1, 0)
    stalls_at(again, [DEAD] * 3)
    assert again.signal(lambda: True, 10) is None
    assert again.signal(lambda: False, 12) == "KILL", "no longer than it is held"


def test_what_drains_is_ended_even_if_it_recovers() -> None:
    process = Process(1, 0)
    stalls_at(process, [STUCK] * 3)
    assert not process.is_stalled(WELL, 12)
    assert process.signal(lambda: False, 13) == "TERM"


def test_another_process_at_its_port_says_nothing_of_it() -> None:
    shown = {**Block().read()[0], "pid": 7, "worker": "w:1", "boot": "b", "phase": "ready", "load_timeout_s": 300}
    hangs = shown | {"beat_age_s": 12.0}
    assert judged(shown, 7) == WELL
    assert judged(hangs, 7) == DEAD
    assert judged(hangs, 8) == Probe()
    process = Process(8, 0)
    assert stalls_at(process, [judged(hangs, 8)] * 30) == []
    assert not process.last.answered


def test_a_load_may_keep_it_from_beating_within_its_limit() -> None:
    shown = {**Block().read()[0], "pid": 7, "worker": "w:1", "boot": "b", "load_timeout_s": 300, "beat_age_s": 60.0}
    assert shown["phase"] == "loading"
    assert judged(shown | {"age_s": 200.0}, 7).problem == ""
    assert judged(shown | {"age_s": 301.0}, 7).problem == "no beat for 60.0 s"


def test_one_that_is_well_gets_no_signal() -> None:
    process = Process(1, 0)
    stalls_at(process, [WELL, DEAD, DEAD])
    assert process.signal(lambda: False, 15) is None


def test_every_kind_has_its_words() -> None:
    assert set(WORDS) == set(ProgramEvent)
