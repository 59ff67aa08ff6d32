"""The life of a daemon: a real process beside a real redis-server."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from daemons.errors import EXIT_DO_NOT_RESTART, EXIT_FAILED, EXIT_OK
from daemons.registry import AcquireStatus, AdoptStatus, Registry, WorkerRecord, WorkerState, connect
from ops.redis_server import RedisServer
from tests.waiting import until
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

PATIENCE_S = 25.0  # of tests on a busy machine: less than any work or drain that they must not wait for
MakeTiny = Callable[..., WorkerProcess]


@pytest.fixture
async def registry(redis_url: str, redis: Redis) -> AsyncIterator[Registry]:
    registry = connect(redis_url)
    yield registry
    await registry.close()


@pytest.fixture
def make_tiny(redis_url: str, tmp_path: Path) -> MakeTiny:
    def make(**settings: object) -> WorkerProcess:
        given = {"redis_url": redis_url, **settings}
        return WorkerProcess("tts", str(given.pop("redis_url")), tmp_path, module="tests.tiny_daemon", **given)

    return make


@contextlib.contextmanager
def running(daemon: WorkerProcess) -> "Iterator[subprocess.Popen[bytes]]":
    """Started, not waited for."""
    process = daemon.start()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def exit_code(process: "subprocess.Popen[bytes]", within_s: float) -> int:
    return await asyncio.to_thread(process.wait, within_s)


async def record_of(registry: Registry, daemon: WorkerProcess) -> WorkerRecord | None:
    workers = (await registry.snapshot()).workers
    return next((worker for worker in workers if worker.worker == f"127.0.0.1:{daemon.port}"), None)


async def state_of(registry: Registry, daemon: WorkerProcess) -> WorkerState | None:
    record = await record_of(registry, daemon)
    return None if record is None else record.state


async def registrations(registry: Registry) -> int:
    return sum(event.kind == "registered" for event in await registry.events())


async def status_of(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status, await answer.text()


async def state_is(registry: Registry, daemon: WorkerProcess, state: WorkerState) -> bool:
    return await state_of(registry, daemon) is state


async def heard(daemon: WorkerProcess, leases: str) -> bool:
    return await status_of(f"{daemon.url}/leases") == (200, leases)


async def hears_of(daemon: WorkerProcess, registry: Registry) -> bool:
    """Whether a lease is heard of sooner than heartbeats alone would have it: the wake-ups come through."""
    acquired = await registry.acquire("call-1", ["tts"], 15_000)
    assert acquired.status is AcquireStatus.GRANTED
    await asyncio.sleep(0.3)
    soon = await heard(daemon, '["call-1"]')
    assert acquired.fence is not None
    await registry.release("call-1", acquired.fence)
    await asyncio.sleep(0.3)
    return soon and await heard(daemon, "[]")


# Its beginning


async def test_it_is_registered_at_once_and_ready_after_its_load(make_tiny: MakeTiny, registry: Registry) -> None:
    tiny = make_tiny(tts_voice="slow")
    with running(tiny):
        await until(lambda: state_is(registry, tiny, WorkerState.STARTING), within_s=PATIENCE_S)
        assert await status_of(f"http://127.0.0.1:{tiny.port + 1}/readyz") == (503, "loading\n")
        status, body = await status_of(f"{tiny.url}/leases")
        assert status == 503
        assert "still loading its model" in body
        await until(lambda: state_is(registry, tiny, WorkerState.AVAILABLE), within_s=PATIENCE_S)
        assert await status_of(f"http://127.0.0.1:{tiny.port + 1}/readyz") == (200, "ok\n")
        facts = tiny.health()
        assert (facts["role"], facts["model"], facts["slots"], facts["worker"]) == (
            "tts",
            "tiny",
            1,
            f"127.0.0.1:{tiny.port}",
        )
        await asyncio.sleep(2.5)
        record = await record_of(registry, tiny)
        assert record is not None
        assert record.boot == facts["boot"]
        assert record.hb_age_ms < 2400, "it heartbeats"
        assert await registrations(registry) == 1, "it registers once"


async def test_a_taken_port_is_named_with_its_setting_and_its_holder(make_tiny: MakeTiny, tmp_path: Path) -> None:
    async def complaint(offset: int) -> str:
        tiny = make_tiny()
        tiny.log = tmp_path / f"taken-{offset}.log"
        with socket.create_server(("127.0.0.1", tiny.port + offset)) as holder, running(tiny) as process:
            assert await exit_code(process, PATIENCE_S) == EXIT_DO_NOT_RESTART
            return tiny.log.read_text().replace(str(holder.getsockname()[1]), "PORT")

    for said in await asyncio.gather(complaint(offset=0), complaint(offset=1)):
        assert f"port PORT cannot be had (Address already in use): held by process {os.getpid()} (" in said
        assert "CALLBOX_TTS_PORT" in said
        assert "Traceback" not in said


async def test_a_bad_setting_is_told_in_a_line_and_not_tried_again(make_tiny: MakeTiny) -> None:
    tiny = make_tiny(slots="many", drain_s=-1)
    with running(tiny) as process:
        assert await exit_code(process, PATIENCE_S) == EXIT_DO_NOT_RESTART
    said = tiny.log.read_text().splitlines()
    assert said[0] == "bad settings:"
    assert [line.split(":")[0].strip() for line in said[1:]] == ["CALLBOX_SLOTS", "CALLBOX_DRAIN_S"]


@pytest.mark.parametrize(
    ("voice", "code", "said"),
    [
        ("broken", EXIT_FAILED, "RuntimeError: the model is broken"),
        ("missing", EXIT_DO_NOT_RESTART, "there is no such voice; `callbox models` lists them"),
        ("stuck", EXIT_FAILED, "still loading after 1 s"),
    ],
)
async def test_a_load_that_fails_ends_it(
    make_tiny: MakeTiny, registry: Registry, voice: str, code: int, said: str
) -> None:
    tiny = make_tiny(tts_voice=voice, load_timeout_s=1)
    with running(tiny) as process:
        assert await exit_code(process, PATIENCE_S) == code
    assert said in tiny.log.read_text()
    assert await state_of(registry, tiny) in (None, WorkerState.GONE), "nobody waits for it"


async def test_a_successor_retires_it(make_tiny: MakeTiny, registry: Registry) -> None:
    tiny = make_tiny()
    with running(tiny) as process:
        await until(lambda: state_is(registry, tiny, WorkerState.AVAILABLE), within_s=PATIENCE_S)
        await registry.register(f"127.0.0.1:{tiny.port}", "another-boot", "tts", tiny.url, 1)
        assert await exit_code(process, PATIENCE_S) == EXIT_DO_NOT_RESTART
    assert "this boot is retired" in tiny.log.read_text()
    record = await record_of(registry, tiny)
    assert record is not None
    assert (record.boot, record.state) == ("another-boot", WorkerState.STARTING), "its successor is left alone"


# Its registry


async def test_it_waits_for_a_redis_that_is_away_and_outlives_its_restarts(make_tiny: MakeTiny, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    tiny = make_tiny(redis_url=server.url)
    with running(tiny) as process, server:
        server.kill()
        await until(lambda: tiny.log.exists() and "ready on port" in tiny.log.read_text(), within_s=PATIENCE_S)
        await asyncio.sleep(1.2)
        assert await status_of(f"http://127.0.0.1:{tiny.port + 1}/readyz") == (503, "not registered\n")
        assert tiny.log.read_text().count("the registry does not answer") == 1, "said once"
        server.start()
        registry = connect(server.url)
        await until(lambda: state_is(registry, tiny, WorkerState.AVAILABLE), within_s=PATIENCE_S)
        server.kill()
        await asyncio.sleep(1.5)
        server.start()
        await until(lambda: hears_of(tiny, registry), within_s=PATIENCE_S)
        assert process.poll() is None
        assert await registrations(registry) == 1, "Redis kept what it knew"
        await registry.close()
    assert "Traceback" not in tiny.log.read_text()


async def test_a_registry_that_lost_its_data_is_told_again_once(
    make_tiny: MakeTiny, registry: Registry, redis: Redis
) -> None:
    tiny = make_tiny()
    with running(tiny):
        await until(lambda: state_is(registry, tiny, WorkerState.AVAILABLE), within_s=PATIENCE_S)
        boot = tiny.health()["boot"]
        first = await registry.acquire("call-1", ["tts"], 15_000)
        assert first.fence is not None
        await until(lambda: heard(tiny, '["call-1"]'), within_s=PATIENCE_S)
        await redis.flushall()
        await until(lambda: state_is(registry, tiny, WorkerState.STARTING), within_s=PATIENCE_S)
        early = await registry.acquire("call-2", ["tts"], 15_000, queue_max=1)
        assert early.status is AcquireStatus.QUEUED, "whoever held its slot may still come to adopt it"
        await until(lambda: state_is(registry, tiny, WorkerState.AVAILABLE), within_s=PATIENCE_S)
        await asyncio.sleep(2.2)
        assert await registrations(registry) == 1
        assert tiny.health()["boot"] == boot
        second = await registry.acquire("call-2", ["tts"], 15_000)
        assert second.fence is not None
        assert second.fence > first.fence, "fences survive what Redis lost"


async def test_a_slot_that_was_held_when_the_data_was_lost_is_not_given_away(
    make_tiny: MakeTiny, registry: Registry, redis: Redis
) -> None:
    tiny = make_tiny()
    with running(tiny):
        await until(lambda: state_is(registry, tiny, WorkerState.AVAILABLE), within_s=PATIENCE_S)
        held = await registry.acquire("call-1", ["tts"], 15_000)
        assert held.fence is not None
        await until(lambda: heard(tiny, '["call-1"]'), within_s=PATIENCE_S)
        await redis.flushall()
        await until(lambda: state_is(registry, tiny, WorkerState.STARTING), within_s=PATIENCE_S)
        assert await registry.adopt("call-1", held.fence, held.bundle, 15_000) is AdoptStatus.OK
        await until(lambda: state_is(registry, tiny, WorkerState.AVAILABLE), within_s=PATIENCE_S)
        assert await heard(tiny, '["call-1"]')
        assert (await registry.acquire("call-2", ["tts"], 15_000)).status is AcquireStatus.FULL


# Its end


async def test_told_to_end_it_finishes_its_work_and_takes_no_more(make_tiny: MakeTiny, registry: Registry) -> None:
    tiny = make_tiny()
    with running(tiny) as process:
        await until(lambda: state_is(registry, tiny, WorkerState.AVAILABLE), within_s=PATIENCE_S)
        working = asyncio.create_task(status_of(f"{tiny.url}/work?s=1.5"))
        await until(lambda: tiny.health()["in_flight"] == 1, within_s=PATIENCE_S)
        process.terminate()
        await until(lambda: state_is(registry, tiny, WorkerState.DRAINING), within_s=PATIENCE_S)
        assert await status_of(f"http://127.0.0.1:{tiny.port + 1}/readyz") == (503, "draining\n")
        assert (await registry.acquire("call-1", ["tts"], 15_000)).status is not AcquireStatus.GRANTED
        status, said = await status_of(f"{tiny.url}/work?s=0")
        assert status == 503
        assert "this worker is stopping" in said
        assert await working == (200, "done")
        assert await exit_code(process, PATIENCE_S) == EXIT_OK
    assert await state_of(registry, tiny) is WorkerState.GONE


async def test_it_waits_no_longer_than_it_may(make_tiny: MakeTiny) -> None:
    tiny = make_tiny(drain_s=0.5)
    with running(tiny) as process:
        await until(lambda: tiny.log.exists() and "ready on port" in tiny.log.read_text(), within_s=PATIENCE_S)
        working = asyncio.create_task(status_of(f"{tiny.url}/work?s=60"))
        await until(lambda: tiny.health()["in_flight"] == 1, within_s=PATIENCE_S)
        process.terminate()
        assert await exit_code(process, PATIENCE_S) == EXIT_OK
        with pytest.raises(aiohttp.ClientError):
            await working
    assert "work was still under way after 0.5 s" in tiny.log.read_text()


async def test_a_second_signal_ends_it_at_once(make_tiny: MakeTiny) -> None:
    tiny = make_tiny()
    with running(tiny) as process:
        await until(lambda: tiny.log.exists() and "ready on port" in tiny.log.read_text(), within_s=PATIENCE_S)
        working = asyncio.create_task(status_of(f"{tiny.url}/work?s=60"))
        await until(lambda: tiny.health()["in_flight"] == 1, within_s=PATIENCE_S)
        process.terminate()
        await until(lambda: tiny.health()["phase"] == "draining", within_s=PATIENCE_S)
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert await exit_code(process, PATIENCE_S) == EXIT_FAILED
        assert time.monotonic() - began_s < 10, "it did not wait for the work"
        with pytest.raises(aiohttp.ClientError):
            await working


async def test_it_ends_on_time_in_the_middle_of_a_load_that_never_returns(make_tiny: MakeTiny) -> None:
    tiny = make_tiny(tts_voice="stuck")
    with running(tiny) as process:
        await until(lambda: tiny.log.exists() and "registered as" in tiny.log.read_text(), within_s=PATIENCE_S)
        process.terminate()
        assert await exit_code(process, PATIENCE_S) == EXIT_OK
