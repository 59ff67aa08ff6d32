import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from daemons.health import MAX_CONNECTIONS, TEXT_BYTES, Block, why_not_live, why_not_ready
from daemons.settings import ROOT
from ops.free_ports import free_port
from tests.waiting import until
from tests.worker_process import WorkerProcess

SECOND_NS = 10**9

WELL = {
    "phase": "ready",
    "registered": True,
    "in_flight": 0,
    "progress_age_s": 0.0,
    "beat_age_s": 0.1,
    "age_s": 60.0,
    "stall_s": 30.0,
    "load_timeout_s": 300.0,
}

# The verdicts


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"beat_age_s": 9.9}, None),
        ({"beat_age_s": 10.1}, "no beat for 10.1 s"),
        ({"in_flight": 2, "progress_age_s": 29.0}, None),
        ({"in_flight": 2, "progress_age_s": 31.0}, "2 in flight, no progress for 31.0 s"),
        ({"in_flight": 0, "progress_age_s": 3600.0}, None),
        ({"phase": "draining", "in_flight": 1, "progress_age_s": 31.0}, "1 in flight, no progress for 31.0 s"),
        ({"phase": "loading", "in_flight": 1, "progress_age_s": 31.0}, None),
        ({"phase": "loading", "age_s": 299.0}, None),
        ({"phase": "loading", "age_s": 301.0}, "still loading after 301 s"),
        ({"registered": False}, None),
    ],
)
def test_live_means_that_it_beats_and_that_its_work_moves(change: dict[str, Any], problem: str | None) -> None:
    assert why_not_live(WELL | change) == problem


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"phase": "loading"}, "loading"),
        ({"phase": "draining"}, "draining"),
        ({"registered": False}, "not registered"),
        ({"upstream_away": True}, "its upstream does not answer"),
        ({"beat_age_s": 12.0}, "no beat for 12.0 s"),
    ],
)
def test_ready_means_loaded_registered_and_not_draining(change: dict[str, Any], problem: str | None) -> None:
    assert why_not_ready(WELL | change) == problem


# The block


def test_a_reader_sees_what_the_writer_wrote() -> None:
    block = Block()
    block.publish({"boot": "b-1"}, b"up 1\n")
    block.set_phase("draining")
    block.set_registered(True)
    shown, metrics = Block(os.dup(block.fd)).read()
    assert metrics == b"up 1\n"
    assert (shown["boot"], shown["phase"], shown["registered"]) == ("b-1", "draining", True)


def test_work_is_in_flight_while_it_lasts_also_when_it_fails() -> None:
    block = Block()
    with contextlib.suppress(RuntimeError), block.working(), block.working():
        assert block.read()[0]["in_flight"] == 2
        raise RuntimeError
    assert block.in_flight == 0


def test_progress_and_beat_have_an_age(monkeypatch: pytest.MonkeyPatch) -> None:
    block, now_ns = Block(), time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns + 5 * SECOND_NS)
    block.progress()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns + 7 * SECOND_NS)
    shown, _ = block.read()
    assert shown["progress_age_s"] == 2
    assert shown["beat_age_s"] == pytest.approx(7, abs=0.1)


def test_metrics_that_outgrow_the_block_leave_the_facts() -> None:
    block = Block()
    block.publish({"boot": "b-1"}, b"x" * TEXT_BYTES)
    shown, metrics = block.read()
    assert shown["boot"] == "b-1"
    assert metrics.startswith(b"# the metrics of this worker outgrew")
    block.publish({"boot": "b-1"}, b"x" * (TEXT_BYTES - 100))
    assert len(block.read()[1]) == TEXT_BYTES - 100


WRITER = """
import sys
from daemons.health import Block
block, number = Block(int(sys.argv[1])), 0
while True:
    number += 1
    block.publish({"number": number, "padding": "p" * (number % 1000)}, b"%d\\n" % number * (number % 300))
"""


@pytest.fixture
def busy_writer() -> Iterator[tuple[Block, "subprocess.Popen[bytes]"]]:
    """A block that another process writes as fast as it can; metrics repeat the number that the facts name."""
    block = Block()
    command = (sys.executable, "-c", WRITER, str(block.fd))
    with subprocess.Popen(command, pass_fds=(block.fd,), cwd=ROOT) as writer:
        while "number" not in block.read()[0]:
            time.sleep(0.01)
        yield block, writer
        writer.kill()


def consistent_number(block: Block) -> int:
    shown, metrics = block.read()
    number: int = shown["number"]
    assert len(shown["padding"]) == number % 1000
    assert metrics == b"%d\n" % number * (number % 300)
    return number


@pytest.mark.integration
def test_no_reader_ever_sees_half_a_text(busy_writer: tuple[Block, "subprocess.Popen[bytes]"]) -> None:
    block, _ = busy_writer
    seen = [consistent_number(block) for _ in range(3000)]
    assert seen == sorted(seen)
    assert seen[-1] - seen[0] > 1000, "the writer was not disturbed"


@pytest.mark.integration
def test_a_writer_that_stops_halfway_leaves_the_last_text(
    busy_writer: tuple[Block, "subprocess.Popen[bytes]"],
) -> None:
    block, writer = busy_writer
    for _ in range(50):  # most of the writer's time is inside publish
        writer.send_signal(signal.SIGSTOP)
        os.waitpid(writer.pid, os.WUNTRACED)
        began_s = time.monotonic()
        consistent_number(block)
        assert time.monotonic() - began_s < 0.5
        writer.send_signal(signal.SIGCONT)
        time.sleep(0.001)


# The child


class Child:
    """The health process on a port of its own, with this process as its worker."""

    def __init__(self, *, parent_pid: int | None = None) -> None:
        self.block = Block()
        self.block.publish({"boot": "b-1", "stall_s": 30, "load_timeout_s": 300}, b"up 1\n")
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        fds = (self.block.fd, self._listening.fileno())
        command = (sys.executable, "-m", "daemons.health", *map(str, fds), str(parent_pid or os.getpid()))
        self.process = subprocess.Popen(command, pass_fds=fds, cwd=ROOT)

    async def get(self, path: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(f"http://127.0.0.1:{self.port}{path}") as answer,
        ):
            return answer.status, await answer.text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listening.close()


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.close()


@pytest.mark.integration
async def test_the_child_tells_each_phase(child: Child) -> None:
    assert await child.get("/livez") == (200, "ok\n")
    assert await child.get("/readyz") == (503, "loading\n")
    child.block.set_phase("ready")
    assert await child.get("/readyz") == (503, "not registered\n")
    child.block.set_registered(True)
    assert await child.get("/readyz?from=anywhere") == (200, "ok\n")
    child.block.set_phase("draining")
    assert await child.get("/readyz") == (503, "draining\n")
    assert await child.get("/livez") == (200, "ok\n")
    status, body = await child.get("/health")
    assert (status, json.loads(body)["boot"], json.loads(body)["phase"]) == (200, "b-1", "draining")
    assert await child.get("/metrics") == (200, "up 1\n")
    assert (await child.get("/"))[0] == 404


@pytest.mark.integration
async def test_the_child_says_why_its_worker_is_not_live(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    child.block.set_phase("ready")
    real = time.monotonic_ns
    with monkeypatch.context() as at_another_time, child.block.working():
        at_another_time.setattr(time, "monotonic_ns", lambda: real() - 31 * SECOND_NS)
        child.block.progress()
        status, body = await child.get("/livez")
        assert status == 503
        assert body.startswith("1 in flight, no progress for 31.")
    assert await child.get("/livez") == (200, "ok\n")
    with monkeypatch.context() as at_another_time:
        at_another_time.setattr(time, "monotonic_ns", lambda: real() - 11 * SECOND_NS)
        child.block.beat()
    status, body = await child.get("/livez")
    assert status == 503
    assert body.startswith("no beat for 11.")


@pytest.mark.integration
async def test_silent_connections_silence_it_for_two_seconds_at_most(child: Child) -> None:
    assert (await child.get("/livez"))[0] == 200
    with contextlib.ExitStack() as connections:
        for _ in range(MAX_CONNECTIONS + 8):
            connections.enter_context(socket.create_connection(("127.0.0.1", child.port)))

        async def answers() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                return (await child.get("/livez"))[0] == 200
            return False

        await until(answers, 3.0)


@pytest.mark.integration
async def test_it_survives_the_signals_that_end_its_worker(child: Child) -> None:
    assert (await child.get("/livez"))[0] == 200
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        child.process.send_signal(signum)
    assert (await child.get("/livez"))[0] == 200


@pytest.mark.integration
def test_it_ends_when_its_worker_was_gone_before_it_began() -> None:
    child = Child(parent_pid=2**22)
    try:
        assert child.process.wait(5) == 0
    finally:
        child.close()


# In a daemon


@pytest.fixture(scope="module")
def tiny(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    with WorkerProcess("tts", redis_url, tmp_path_factory.mktemp("tiny"), module="tests.tiny_daemon") as tiny:
        yield tiny


def child_of(daemon: WorkerProcess) -> int | None:
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text(encoding="ascii").split()
    return int(children[0]) if children else None


def is_bound(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False


@pytest.mark.integration
async def test_health_answers_for_a_worker_that_stands_still(tiny: WorkerProcess) -> None:
    os.kill(tiny.pid, signal.SIGSTOP)
    try:
        await until(lambda: tiny.health()["beat_age_s"] > 1.2, within_s=5)
    finally:
        os.kill(tiny.pid, signal.SIGCONT)
    await until(lambda: tiny.health()["beat_age_s"] < 0.6, within_s=2)


@pytest.mark.integration
async def test_a_health_process_that_dies_is_replaced(tiny: WorkerProcess) -> None:
    first = child_of(tiny)
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: child_of(tiny) not in (None, first), within_s=4)
    assert tiny.health()["phase"] == "ready"
    assert "starting another" in tiny.log.read_text()


@pytest.mark.integration
async def test_it_dies_with_its_worker_whose_ports_are_free_at_once(redis_url: str, tmp_path: Path) -> None:
    with WorkerProcess("tts", redis_url, tmp_path, module="tests.tiny_daemon") as tiny:
        child, boot = psutil.Process(child_of(tiny)), tiny.health()["boot"]
        os.kill(tiny.pid, signal.SIGKILL)
        tiny.end()
    await until(lambda: not is_bound(tiny.port) and not is_bound(tiny.port + 1), within_s=0.5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    with tiny:
        assert tiny.health()["boot"] != boot


def test_is_bound_can_tell() -> None:
    port = free_port()
    assert not is_bound(port)
    with socket.create_server(("127.0.0.1", port)):
        assert is_bound(port)
