"""What a bench leaves behind when it is interrupted."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from ops.supervise import BOX_VARIABLE

pytestmark = pytest.mark.e2e

BENCH = """
import signal
import time
from ops.private_box import PrivateBox
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
with PrivateBox(slots=1, llm_model="smollm2-135m") as box:
    print(box.var_dir, flush=True)
    time.sleep(60)
"""
TIDYING_UP_S = 0.5
ENDS_S = 30.0


def programs_of(var_dir: str) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            theirs = process.environ().get(BOX_VARIABLE) == var_dir or var_dir in " ".join(process.cmdline())
        except psutil.Error:
            continue
        if theirs:
            found.append(process.pid)
    return found


def test_a_second_interruption_ends_what_the_first_was_ending() -> None:
    bench = subprocess.Popen(
        [sys.executable, "-c", BENCH], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert bench.stdout is not None
        var_dir = bench.stdout.readline().strip()
        assert len(programs_of(var_dir)) > 5
        bench.send_signal(signal.SIGINT)
        time.sleep(TIDYING_UP_S)
        bench.send_signal(signal.SIGINT)
        bench.communicate(timeout=ENDS_S)
        assert bench.returncode not in (0, None)
    finally:
        bench.kill()
        bench.wait()
    deadline = time.monotonic() + ENDS_S
    while (left := programs_of(var_dir)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
