"""The monitor beside real health processes and a real registry."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from yarl import URL

from daemons.health import Block
from daemons.monitor.probe import problem_of
from daemons.monitor.server import Monitor
from daemons.registry import Registry, WorkerRecord, WorkerState, connect
from ops.free_ports import free_port

pytestmark = pytest.mark.integration


class Worker:
    """A health process as a daemon has it, without the daemon."""

    def __init__(self, boot: str) -> None:
        self.boot = boot
        self.block = Block()
        self.block.publish({"boot": boot, "load_timeout_s": 300, "stall_s": 30}, b"")
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self._socket.getsockname()[1] - 1}"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        fds = (self.block.fd, self._socket.fileno())
        command = (sys.executable, "-m", "daemons.health", *map(str, fds), str(os.getpid()))
        self._process = await asyncio.create_subprocess_exec(*command, pass_fds=fds)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._socket.close()

    def signal(self, signum: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(signum)

    async def register(self, registry: Registry) -> None:
        await registry.register(self.name, self.boot, "tts", f"http://{self.name}", 1)
        await registry.heartbeat(self.name, self.boot, ready=True)

    def be_ready(self) -> None:
        self.block.set_phase("ready")
        self.block.set_registered(True)


async def until(condition: Callable[[], Awaitable[bool]], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not await condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.05)


@pytest.fixture
async def registry(redis_url: str, redis: Redis) -> AsyncIterator[Registry]:
    registry = connect(redis_url)
    yield registry
    await registry.close()


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker("boot-1")
    await worker.start()
    yield worker
    await worker.stop()


@contextlib.asynccontextmanager
async def monitor_of(registry: Registry) -> AsyncIterator[tuple[Monitor, CollectorRegistry]]:
    metrics = CollectorRegistry()
    monitor = Monitor(registry, metrics)
    try:
        yield monitor, metrics
    finally:
        await monitor.close()


async def record(registry: Registry) -> WorkerRecord:
    return (await registry.snapshot()).workers[0]


async def test_a_problem_is_told_in_words(registry: Registry, worker: Worker) -> None:
    await worker.register(registry)
    async with aiohttp.ClientSession() as http:

        async def problem(boot: str = "boot-1") -> str | None:
            await registry.register(worker.name, boot, "tts", f"http://{worker.name}", 1)
            return await problem_of(http, await record(registry))

        assert await problem() is None, "loading is no problem"
        worker.be_ready()
        assert await problem() is None
        worker.block.set_registered(False)
        assert await problem() == "not registered"
        worker.signal(signal.SIGSTOP)
        assert await problem() == "no answer within 1 s"
        worker.signal(signal.SIGCONT)
        assert "another process" in str(await problem("boot-2"))
        await worker.stop()
        assert "Connect" in str(await problem("boot-2"))


async def test_a_worker_that_hangs_becomes_unhealthy_and_heals(registry: Registry, worker: Worker) -> None:
    worker.be_ready()
    await worker.register(registry)
    async with monitor_of(registry) as (monitor, metrics):
        await monitor.probe_all()
        assert (await record(registry)).state is WorkerState.AVAILABLE
        worker.signal(signal.SIGSTOP)
        for _ in range(3):
            await monitor.probe_all()
        assert (await record(registry)).state is WorkerState.UNHEALTHY
        assert metrics.get_sample_value("callbox_probes_total", {"role": "tts", "result": "bad"}) == 3
        worker.signal(signal.SIGCONT)
        await registry.heartbeat(worker.name, worker.boot, ready=True)
        for _ in range(2):
            await monitor.probe_all()
        assert (await record(registry)).state is WorkerState.AVAILABLE


async def test_one_that_hangs_holds_up_no_other(registry: Registry, worker: Worker) -> None:
    silent = [Worker(f"silent-{i}") for i in range(5)]
    worker.be_ready()
    try:
        for each in (worker, *silent):  # nobody accepts for the silent ones
            await each.register(registry)
        async with monitor_of(registry) as (monitor, metrics):
            started = time.monotonic()
            await monitor.probe_all()
            assert time.monotonic() - started < 1.5
            assert metrics.get_sample_value("callbox_probes_total", {"role": "tts", "result": "bad"}) == 5
    finally:
        for each in silent:
            await each.stop()


async def test_what_the_registry_holds_is_exported(registry: Registry) -> None:
    async with monitor_of(registry) as (monitor, metrics):
        await monitor.reap()
        await registry.register("t:1", "b", "tts", "http://t:1", 1)
        await registry.heartbeat("t:1", "b", ready=True)
        granted = await registry.acquire("c1", ["tts"], queue_max=2)
        await registry.acquire("c2", ["tts"], queue_max=2)
        await monitor.reap()
        value = metrics.get_sample_value
        assert value("callbox_registry_workers", {"role": "tts", "state": "available"}) == 1
        assert (
            value("callbox_registry_slots", {"role": "tts"}) == value("callbox_registry_leases", {"role": "tts"}) == 1
        )
        assert value("callbox_registry_calls", {"state": "held"}) == 1
        assert value("callbox_registry_queue_length") == 1
        assert value("callbox_registry_grants_total") == 1
        assert value("callbox_registry_events_total", {"kind": "queued"}) == 1
        assert value("callbox_registry_losses_total", {"what": "member"}) == 0
        await registry.deregister("t:1", "b")
        assert granted.fence is not None
        await registry.release("c1", granted.fence)
        await registry.cancel("c2")
        await monitor.reap()
        assert value("callbox_registry_workers", {"role": "tts", "state": "gone"}) == 1
        assert value("callbox_registry_losses_total", {"what": "member"}) == 1
        assert value("callbox_registry_losses_total", {"what": "call"}) == 0
        assert value("callbox_registry_queue_length") == 0


async def test_it_runs_as_a_daemon(redis_url: str, registry: Registry, tmp_path: Path) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "CALLBOX_REDIS_URL": redis_url,
        "CALLBOX_MONITOR_PORT": str(port),
        "CALLBOX_VAR_DIR": str(tmp_path),
    }
    health = URL(f"http://127.0.0.1:{port + 1}")
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "daemons.monitor", env=environment)
    try:
        async with aiohttp.ClientSession() as http:

            async def exports() -> bool:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(health / "readyz") as ready, http.get(health / "metrics") as response:
                        return ready.status == 200 and "callbox_registry_queue_length 0.0" in await response.text()
                return False

            await until(exports, 15)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
