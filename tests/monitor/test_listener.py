"""The listener under a real supervisord, with real programs that fail and a real daemon that hangs.

Its waits between starts are short here, and ticks come each 5 s; when a daemon counts as stalled is as in the box.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest

from daemons.errors import EXIT_DO_NOT_RESTART, Unavailable
from daemons.monitor.listener import Listener, look
from daemons.registry import AcquireStatus, Event, Registry, WorkerState, connect
from daemons.settings import ROOT, Settings
from ops.free_ports import free_pair
from ops.redis_server import RedisServer
from ops.supervise import State, Supervisord
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

SOON_S = 30.0  # a wait or two, and the ticks until they are noticed
TWO_TICKS_S = 11.0

HEAD = """
[unix_http_server]
file={socket}
[supervisord]
pidfile={folder}/supervisord.pid
logfile={folder}/supervisord.log
childlogdir={folder}
directory={root}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[eventlistener:listener]
command={python} -m tests.monitor.quick_listener tts stt
environment={environment}
events=PROCESS_STATE,SUPERVISOR_STATE_CHANGE_STOPPING,TICK_5
buffer_size=1000
exitcodes=78
stdout_logfile=NONE
stderr_logfile={folder}/listener.log
"""
PROGRAM = """
[program:{name}]
command={command}
environment={environment}
startsecs={startsecs}
startretries=0
autorestart=unexpected
exitcodes=78
stopwaitsecs={stopwaitsecs}
redirect_stderr=true
stdout_logfile={folder}/{name}.log
"""


class Box:
    """A supervisord with a listener, a Redis, and what is to fail.

    `gives-up` and `loops` end at once until `mended`; `retired` asks not to be restarted; `tts` and `stt` are two real
    daemons of the same role.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.redis = RedisServer(folder)
        self.ports = {"tts": free_pair(), "stt": free_pair()}
        self.settings = Settings(var_dir=folder, redis_url=self.redis.url)
        self.supervisord = Supervisord(self.settings)
        settings = {"var_dir": folder, "redis_url": self.redis.url}
        environment = _environment(**settings, **{f"{name}_port": port for name, port in self.ports.items()})
        (folder / "run").mkdir()
        (folder / "etc").mkdir()
        head = HEAD.format(
            socket=folder / "run/supervisor.sock", folder=folder, root=ROOT, python=sys.executable,
            environment=environment,
        )  # fmt: skip
        until_mended = (
            'printf "\\033[1mno luck\\n"; echo run >> {0}/{1}.runs; [ -e {0}/{1}.mended ] && exec sleep 600; exit 3'
        )
        programs = {
            "gives-up": (1, until_mended.format(folder, "gives-up")),
            "loops": (0, until_mended.format(folder, "loops")),
            "retired": (1, f"sleep 1.2; exit {EXIT_DO_NOT_RESTART}"),
        }
        daemon = f"{sys.executable} -m tests.tiny_daemon"
        sections = [
            self._section(name, 1, daemon, _environment(**settings, tts_port=port)) for name, port in self.ports.items()
        ]
        sections += [self._section(name, s, f"sh -c '{script}'", environment) for name, (s, script) in programs.items()]
        self.supervisord.conf.write_text(head + "".join(sections))

    def _section(self, name: str, startsecs: int, command: str, environment: str) -> str:
        # A SIGTERM that comes between supervisord's fork and exec is lost, and these may be stopped that early.
        stopwaitsecs = 35 if name in self.ports else 3
        return PROGRAM.format(
            name=name, command=command, startsecs=startsecs, environment=environment, stopwaitsecs=stopwaitsecs,
            folder=self.folder,
        )  # fmt: skip

    def __enter__(self) -> "Box":
        self.redis.start()
        self.supervisord.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.supervisord.shut_down()
        self.redis.kill()

    def state(self, program: str) -> State:
        return next(state for state in self.supervisord.states() if state.name == program)

    def is_in(self, program: str, state: str) -> bool:
        return self.state(program).state == state

    def worker(self, program: str) -> str:
        return f"127.0.0.1:{self.ports[program]}"

    def mend(self, program: str) -> None:
        (self.folder / f"{program}.mended").touch()

    def break_again(self, program: str) -> None:
        (self.folder / f"{program}.mended").unlink()
        self.kill(program)

    def kill(self, program: str) -> None:
        pid = self.state(program).pid
        assert pid, f"{program} does not run"
        os.kill(pid, signal.SIGKILL)

    def runs(self, program: str) -> int:
        return len((self.folder / f"{program}.runs").read_text().splitlines())

    @property
    def log(self) -> str:
        return (self.folder / "listener.log").read_text()


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with tempfile.TemporaryDirectory(prefix="cb-") as folder, Box(Path(folder)) as box:
        yield box


@pytest.fixture
async def registry(box: Box) -> AsyncIterator[Registry]:
    registry = connect(box.redis.url)
    yield registry
    await registry.close()


async def told(registry: Registry, program: str) -> list[Event]:
    with contextlib.suppress(Unavailable):
        return [event for event in await registry.events(count=10_000) if event.data.get("program") == program]
    return []


async def was_told(registry: Registry, program: str, kind: str) -> bool:
    return kind in {event.kind for event in await told(registry, program)}


async def test_one_that_gives_up_is_started_again_until_it_runs(box: Box, registry: Registry) -> None:
    await until(lambda: was_told(registry, "gives-up", "program_fatal"), SOON_S)
    assert f"the end of {box.folder}/gives-up.log:\n    \x1b[1mno luck" in box.log
    before = box.runs("gives-up")
    await until(lambda: box.runs("gives-up") > before, SOON_S)
    box.mend("gives-up")
    await until(lambda: was_told(registry, "gives-up", "program_started_again"), SOON_S)
    # supervisord says RUNNING of who has lived for a second, which one that still fails may do on a busy machine.
    await until(lambda: box.is_in("gives-up", "RUNNING"), SOON_S)


async def test_a_crash_loop_is_told_and_slowed_down_and_over_when_it_stays_up(box: Box, registry: Registry) -> None:
    await until(lambda: was_told(registry, "loops", "crash_loop"), SOON_S)
    before = box.runs("loops")
    await asyncio.sleep(TWO_TICKS_S)
    assert box.runs("loops") - before <= 40, "hundreds without the listener"
    box.mend("loops")
    await until(lambda: was_told(registry, "loops", "crash_loop_over"), 2 * SOON_S)
    await until(lambda: box.is_in("loops", "RUNNING"), SOON_S)


async def test_what_a_listener_holds_is_started_by_the_next_one(box: Box, registry: Registry) -> None:
    loops = len([event for event in await told(registry, "loops") if event.kind == "crash_loop"])
    box.break_again("loops")
    await until(lambda: box.is_in("loops", "STOPPED") and (box.folder / "run/held").read_text() == "loops", SOON_S)
    assert len([event for event in await told(registry, "loops") if event.kind == "crash_loop"]) > loops
    box.kill("listener")
    box.mend("loops")
    await until(lambda: box.is_in("loops", "RUNNING"), SOON_S)
    await until(lambda: (box.folder / "run/held").read_text() == "", SOON_S)


async def test_do_not_restart_me_is_obeyed_and_said(box: Box, registry: Registry) -> None:
    await until(lambda: was_told(registry, "retired", "program_wants_no_restart"), SOON_S)
    assert "retired ended and asked not to be restarted" in box.log
    assert box.is_in("retired", "EXITED")


async def test_what_a_person_stops_stays_stopped(box: Box) -> None:
    for program in ("gives-up", "loops"):
        await until(lambda name=program: box.is_in(name, "RUNNING"), SOON_S)  # type: ignore[misc]
        box.supervisord.stop(program)
    await asyncio.sleep(TWO_TICKS_S)
    assert {program: box.state(program).state for program in ("gives-up", "loops", "retired")} == {
        "gives-up": "STOPPED",
        "loops": "STOPPED",
        "retired": "EXITED",
    }


async def test_a_daemon_that_hangs_is_restarted_and_one_that_does_for_a_moment_is_not(
    box: Box, registry: Registry
) -> None:
    for program in ("tts", "stt"):
        await until(lambda name=program: state_is(registry, box, name, WorkerState.AVAILABLE), SOON_S)  # type: ignore[misc]
    await asyncio.gather(hangs_for_a_moment(box, registry), hangs(box, registry))


async def hangs_for_a_moment(box: Box, registry: Registry) -> None:
    (worker,) = [one for one in (await registry.snapshot()).workers if one.worker == box.worker("stt")]
    await registry.drain(worker.worker, worker.boot)  # no place for the call of the other
    pid = box.state("stt").pid
    for signum, for_s in ((signal.SIGSTOP, 16), (signal.SIGCONT, TWO_TICKS_S)):  # not live for 6 s: one tick or two
        os.kill(pid, signum)
        await asyncio.sleep(for_s)
    assert box.state("stt").pid == pid
    assert await told(registry, "stt") == []


async def hangs(box: Box, registry: Registry) -> None:
    """Its call moves to another worker before it is killed."""
    before = await registry.acquire("call-1", ["tts"])
    assert before.status is AcquireStatus.GRANTED
    fence = before.fence or 0
    assert before.bundle["tts"].worker == box.worker("tts")
    await registry.register("other:1", "b", "tts", "http://other:1", 1)
    pid = box.state("tts").pid
    moved_to = ""

    async def hold() -> None:
        nonlocal moved_to
        while True:
            await registry.heartbeat("other:1", "b", ready=True)
            if (await registry.renew("call-1", fence)).moving and not moved_to:
                assert box.state("tts").pid == pid, "it was killed before its call could move"
                swapped = await registry.swap("call-1", fence, "tts")
                moved_to = swapped.member.worker if swapped.member else ""
            await asyncio.sleep(0.5)

    holding = asyncio.create_task(hold())
    try:
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: box.state("tts").pid not in (0, pid), 60)
        await until(lambda: state_is(registry, box, "tts", WorkerState.AVAILABLE), SOON_S)
        assert not holding.done(), holding
    finally:
        holding.cancel()
    assert moved_to == "other:1"
    stalled, restarted = await told(registry, "tts")
    assert (stalled.kind, stalled.data["worker"]) == ("stalled", box.worker("tts"))
    assert "no beat for" in stalled.data["why"]
    assert (restarted.kind, restarted.data["signal"]) == ("program_restarted", "SIGKILL")
    assert int(restarted.data["after_s"]) < 10, "no longer than its call needed to move"
    assert not psutil.pid_exists(pid)


async def test_it_goes_on_without_the_registry(box: Box) -> None:
    await until(lambda: box.is_in("listener", "RUNNING"), SOON_S)
    pid = box.state("listener").pid
    box.redis.kill()
    try:
        (box.folder / "gives-up.mended").unlink()
        box.supervisord.restart("gives-up")
        await until(lambda: "without the registry" in box.log, SOON_S)
        box.mend("gives-up")
        await until(lambda: box.is_in("gives-up", "RUNNING"), SOON_S)
    finally:
        box.redis.start()
    assert box.state("listener").pid == pid


def test_what_is_heard_of_late_is_no_crash_loop(box: Box) -> None:
    """A listener that was stopped for an hour hears of that hour in a second."""
    box.mend("loops")
    box.supervisord.restart("loops")
    listener = Listener(box.settings, [])
    ended = {"processname": "loops", "groupname": "loops", "from_state": "RUNNING", "expected": "0", "pid": "1"}
    for age_s, state in ((3600, "RUNNING"), (0, "STOPPED")):
        listener.heard({"eventname": "TICK_5", "pool": "listener"}, {"when": str(int(time.time()) - age_s)})
        for _ in range(5):
            listener.heard({"eventname": "PROCESS_STATE_EXITED", "pool": "listener"}, ended)
        asyncio.run(until(lambda wanted=state: box.is_in("loops", wanted), SOON_S))  # type: ignore[misc]
    assert box.supervisord.held() == {"loops"}


async def test_what_answers_at_a_health_port_may_be_anything() -> None:
    answers = [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n\r\n<html>", b"HTTP/1.1 200 OK\r\n\r\n[1]"]
    answers += [b'HTTP/1.1 200 OK\r\n\r\n{"pid": 1}', b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[-1])
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        while answers:
            seen = await asyncio.to_thread(look, port, 1)
            assert not seen.answered, answers[-1]
            assert seen.problem
            answers.pop()


def _environment(**settings: object) -> str:
    return ",".join(f'CALLBOX_{name.upper()}="{value}"' for name, value in settings.items())


async def state_is(registry: Registry, box: Box, program: str, state: WorkerState) -> bool:
    workers = (await registry.snapshot()).workers
    return any(worker.worker == box.worker(program) and worker.state is state for worker in workers)
