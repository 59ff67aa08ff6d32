"""The monitor beside what a health port should never be: garbage, floods, silence, strangers, nonsense addresses."""

import asyncio
import gzip
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from daemons.monitor import probe, server
from daemons.monitor.server import Monitor
from daemons.registry import Registry, WorkerRecord, WorkerState, connect
from ops.redis_server import RedisServer
from tests.monitor.test_monitor import Worker
from tests.waiting import until

pytestmark = pytest.mark.integration

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def http(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def health(boot: str = "b", phase: str = "ready") -> bytes:
    return http(json.dumps({"boot": boot, "phase": phase}).encode())


def saying(*parts: bytes, every_s: float = 0.0) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(every_s)

    return answer


async def flooding(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n{")
    while True:
        writer.write(b" " * 2**20)
        await writer.drain()


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def floods_after_health(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if b"/health" in await reader.readuntil(b"\r\n\r\n"):
        writer.write(health())
    else:
        writer.write(http(b"x" * 10**6, status="503 Busy"))


@asynccontextmanager
async def health_port(answer: Answer) -> AsyncIterator[str]:
    """Yields the address of the worker whose health is answered so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the prober left
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1] - 1}"
    finally:
        listening.close()


def record(addr: str, boot: str = "b") -> WorkerRecord:
    return WorkerRecord("w", boot, "tts", addr, 1, WorkerState.AVAILABLE, 0, {}, ())


async def problem_at(addr: str) -> str | None:
    async with probe.session() as session:
        return await probe.problem_of(session, record(addr))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (saying(b"\x00\xffnot HTTP at all\r\n\r\n"), "BadStatusLine|InvalidHeader|Bad"),
        (saying(), "Disconnected"),
        (silent, "no answer within 1 s"),
        (flooding, "more than 65536 bytes"),
        (floods_after_health, "more than 65536 bytes"),
        (saying(b"HTTP/1.1 200 OK\r\n", *[b"X-More: 1\r\n"] * 400, every_s=0.01), "no answer within 1 s"),
        (saying(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10**6), "."),
        (saying(http(b"[" * 60_000)), "Recursion|JSON"),
        (saying(http(b"[1, 2, 3]")), "not as a worker's health"),
        (saying(http(b'{"phase": "ready"}')), "not as a worker's health"),
        (saying(http(b"<html>It works!</html>")), "JSON"),
        (saying(http(gzip.compress(b" " * 10**7), "Content-Encoding: gzip")), "Unicode|JSON"),
        (saying(http(b"", "Location: http://127.0.0.1:9/health", status="302 Found")), "JSON"),
        (saying(health("other")), "another process answers on its port"),
        (saying(health("x" * 60_000)), "another process answers on its port"),
        (saying(http(json.dumps({"boot": "b"}).encode(), status="500 Oops")), "not as a worker's health"),
    ],
)
async def test_whatever_answers_is_a_problem_in_few_words_and_little_time(answer: Answer, words: str) -> None:
    async with health_port(answer) as addr:
        began_s = time.monotonic()
        problem = await problem_at(addr)
        assert time.monotonic() - began_s < 3
        assert problem is not None
        assert len(problem) <= 200
        assert any(word in problem for word in words.split("|")), problem


@pytest.mark.parametrize(
    "addr",
    [
        *("", "nonsense", "http://", "http://127.0.0.1", "http://127.0.0.1:65535", "http://[bad:9000"),
        *("http://127.0.0.1:99999", "redis://127.0.0.1:9000", "file:///etc/passwd", "http://nobody.invalid:9000"),
        *("http://127.0.0.1:-1", "http://\x00:9000", "http://" + "x" * 300 + ":9000"),
    ],
)
async def test_a_nonsense_address_is_a_problem_and_no_more(addr: str) -> None:
    assert await problem_at(addr)


async def test_the_workers_own_reason_becomes_one_line() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_health = b"/health" in await reader.readuntil(b"\r\n\r\n")
        writer.write(health() if is_health else http(b"no beat\nfor 12 s\n", status="503 Service Unavailable"))

    async with health_port(answer) as addr:
        assert await problem_at(addr) == "no beat for 12 s"


@pytest.mark.parametrize("phase", ["loading", "draining"])
async def test_who_loads_or_drains_is_well_while_it_lives(phase: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if b"/health" in asked:
            writer.write(health(phase=phase))
        elif b"/livez" in asked:
            writer.write(http(b"ok"))
        else:
            writer.write(http(phase.encode(), status="503 Service Unavailable"))

    async with health_port(answer) as addr:
        assert await problem_at(addr) is None


@pytest.fixture
async def registry(redis_url: str, redis: Redis) -> AsyncIterator[Registry]:
    registry = connect(redis_url)
    yield registry
    await registry.close()


@asynccontextmanager
async def monitor_of(registry: Registry, *, running: bool = False) -> AsyncIterator[Monitor]:
    monitor = Monitor(registry, CollectorRegistry())
    if running:
        await monitor.load()
    try:
        yield monitor
    finally:
        await monitor.close()


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    worker = Worker("boot-1")
    await worker.start()
    worker.be_ready()
    yield worker
    await worker.stop()


async def state_of(registry: Registry, worker: str) -> WorkerState:
    return next(each.state for each in (await registry.snapshot()).workers if each.worker == worker)


async def test_strangers_and_nonsense_spoil_nobody_elses_probe(registry: Registry, worker: Worker) -> None:
    await worker.register(registry)
    for _ in range(3):
        await registry.probe(worker.name, worker.boot, ok=False)
    assert await state_of(registry, worker.name) is WorkerState.UNHEALTHY
    async with health_port(flooding) as flood, health_port(saying(http(b"[" * 60_000))) as deep:
        for number, addr in enumerate((flood, deep, "nonsense", "http://127.0.0.1:65535", "http://[bad")):
            await registry.register(f"bad-{number}", "b", "tts", addr, 1)
            await registry.heartbeat(f"bad-{number}", "b", ready=True)
        async with monitor_of(registry) as monitor:
            for _ in range(3):
                await monitor.probe_all()
        assert await state_of(registry, worker.name) is WorkerState.AVAILABLE
        for number in range(5):
            assert await state_of(registry, f"bad-{number}") is WorkerState.UNHEALTHY


async def test_two_hundred_that_hang_delay_nobody(registry: Registry, worker: Worker) -> None:
    await worker.register(registry)
    async with health_port(silent) as addr:
        for number in range(200):
            await registry.register(f"hung-{number}", "b", "llm", addr, 1)
            await registry.heartbeat(f"hung-{number}", "b", ready=True)
        async with monitor_of(registry) as monitor:
            began_s = time.monotonic()
            await monitor.probe_all()
            assert time.monotonic() - began_s < 10 * probe.TIMEOUT_S, "not one after the other"
            await monitor.probe_all()
            await registry.heartbeat(worker.name, worker.boot, ready=True)
            await monitor.probe_all()
        workers = (await registry.snapshot()).workers
        assert sum(each.state is WorkerState.UNHEALTHY for each in workers) == 200
        assert await state_of(registry, worker.name) is WorkerState.AVAILABLE


async def test_passes_that_take_longer_than_their_period_do_not_pile_up(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PROBE_S", 0.05)
    open_now, most, served = 0, 0, 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most, served
        open_now, served = open_now + 1, served + 1
        most = max(most, open_now)
        try:
            await silent(reader, writer)
        finally:
            open_now -= 1

    async with health_port(count) as addr:
        await registry.register("hung", "b", "tts", addr, 1)
        async with monitor_of(registry, running=True):
            await until(lambda: served >= 3, within_s=15)
        assert most == 1
        await until(lambda: open_now == 0, within_s=5)


async def test_two_monitors_agree(registry: Registry, worker: Worker) -> None:
    await worker.register(registry)

    async def becomes(state: WorkerState) -> bool:
        worker.block.beat()
        await registry.heartbeat(worker.name, worker.boot, ready=True)
        return await state_of(registry, worker.name) is state

    async with monitor_of(registry, running=True), monitor_of(registry, running=True):
        for _ in range(25):  # five seconds: two passes of each
            assert await becomes(WorkerState.AVAILABLE)
            await asyncio.sleep(0.2)
        worker.signal(signal.SIGSTOP)
        await until(lambda: becomes(WorkerState.UNHEALTHY), within_s=15)
        worker.signal(signal.SIGCONT)
        await until(lambda: becomes(WorkerState.AVAILABLE), within_s=15)


async def test_it_ends_in_time_while_redis_hangs(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis_server:
        registry = connect(redis_server.url)
        monitor = Monitor(registry, CollectorRegistry())
        await monitor.load()
        await asyncio.sleep(0.5)
        os.kill(redis_server.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(1.5)  # passes wait for it now
            began_s = time.monotonic()
            await asyncio.wait_for(monitor.close(), 10)
            assert time.monotonic() - began_s < 5
        finally:
            os.kill(redis_server.pid, signal.SIGCONT)
            await registry.close()
