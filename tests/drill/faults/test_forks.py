"""Children forked from a process that has imported everything, and their end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from daemons.settings import ROOT
from ops.drill.faults.forks import EXIT_CRASHED, Forks
from tests.waiting import until

pytestmark = pytest.mark.integration

ENTRIES = "tests.drill.faults.entries"
SOON_S = 10.0


async def test_a_child_runs_its_entry_with_its_arguments_and_environment(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with Forks(ENTRIES) as forks:
        child = await forks.start(
            entry=f"{ENTRIES}:tell", args=["7", "seven"], environment={"CALLBOX_SLOTS": "5"}, log=log
        )
        assert await child.wait() == 7
    assert log.read_text() == "seven, with 5 slots\n"


async def test_a_command_takes_the_childs_place(tmp_path: Path) -> None:
    async with Forks() as forks:
        child = await forks.start(command=["sh", "-c", "echo here; exit 3"], log=tmp_path / "log")
        assert await child.wait() == 3
    assert (tmp_path / "log").read_text() == "here\n"


async def test_an_entry_that_is_not_there_ends_the_child_with_a_word_in_its_log(tmp_path: Path) -> None:
    async with Forks() as forks:
        child = await forks.start(entry=f"{ENTRIES}:nothing_of_this_name", log=tmp_path / "log")
        assert await child.wait() == EXIT_CRASHED
    assert "nothing_of_this_name" in (tmp_path / "log").read_text()


async def test_children_can_be_stopped_and_killed(tmp_path: Path) -> None:
    async with Forks() as forks:
        child = await forks.start(command=["sleep", "600"], log=tmp_path / "log")
        child.signal(signal.SIGSTOP)
        await until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED, SOON_S)
        child.signal(signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
        child.signal(signal.SIGKILL)  # of a process that is gone: nothing happens


async def test_children_that_are_left_are_killed_at_the_end(tmp_path: Path) -> None:
    async with Forks() as forks:
        child = await forks.start(command=["sleep", "600"], log=tmp_path / "log")
    assert not psutil.pid_exists(child.pid)


def test_children_end_when_the_drill_itself_is_killed(tmp_path: Path) -> None:
    """Also one that ignores every signal it can."""
    program = (
        "import asyncio, pathlib\n"
        "from ops.drill.faults.forks import Forks\n"
        "async def main():\n"
        f"    log = pathlib.Path({str(tmp_path / 'log')!r})\n"
        "    async with Forks() as forks:\n"
        "        child = await forks.start(command=['sh', '-c', 'trap \"\" TERM INT HUP; sleep 600'], log=log)\n"
        "        print(child.pid, forks.pid, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as drill:
        assert drill.stdout is not None
        pids = [int(pid) for pid in drill.stdout.readline().split()]
        drill.kill()
    deadline = time.monotonic() + SOON_S
    while any(map(psutil.pid_exists, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
