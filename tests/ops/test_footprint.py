"""What is counted of a process: this one's own files, threads and memory."""

import mmap
import multiprocessing
import socket
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
import pytest

from ops.footprint import Footprint

KEPT_BYTES = 20 * 2**20


def this_one(*without_ports: int) -> Footprint:
    return Footprint.of([psutil.Process()], without_ports)


def before_and_after() -> tuple[Footprint, Footprint]:
    """One file, one thread and KEPT_BYTES apart."""
    before, over = this_one(), threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    with Path("/dev/null").open("rb"):
        kept = mmap.mmap(-1, KEPT_BYTES, flags=mmap.MAP_PRIVATE)  # of a heap some may be free already
        kept.write(b"x" * KEPT_BYTES)
        now = this_one()
    over.set()
    thread.join()
    return before, now


def test_what_is_opened_started_and_written_is_counted() -> None:
    # In a process of its own: here, threads of earlier tests' libraries write, too.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        before, now = pool.submit(before_and_after).result(timeout=60)
    assert now.files == before.files + 1
    assert now.threads == before.threads + 1
    assert KEPT_BYTES - 2**20 < now.own_bytes - before.own_bytes < KEPT_BYTES + 2**20
    assert now.resident_bytes > now.own_bytes


def test_connections_to_a_port_may_be_left_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port, before = server.getsockname()[1], this_one().files
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            assert this_one().files == before + 2
            assert this_one(port).files == before


def test_processes_are_added_up_and_one_that_has_ended_is_none() -> None:
    one, two = this_one(), Footprint.of([psutil.Process(), psutil.Process()])
    assert two.threads == 2 * one.threads
    with psutil.Popen(["true"]) as ended:
        ended.wait()
    with pytest.raises(psutil.NoSuchProcess):
        Footprint.of([ended])
