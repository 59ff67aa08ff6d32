"""The nine faults of the demo that this design exists to rule out.

Each has a mutant (`mutants/demo.py`, `test_python_mutants.py`) that brings this fault back, and that fails this test.
"""

import asyncio
import contextlib
import time
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from daemons.errors import Unavailable
from daemons.monitor.server import REAP_S, Monitor
from daemons.registry import AcquireStatus, CallState, RegisterStatus, RenewStatus, connect
from ops.redis_server import RedisServer
from tests.registry.box import TTL_MS, Box
from tests.waiting import until
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

WORKER_MODULE = "tests.tiny_daemon"


async def test_register_over_busy_keeps_the_lease(box: Box) -> None:
    """The demo's 30-second register loop rebuilt the record and wiped BUSY in mid-call."""
    boot = await box.up("t:1", "tts")
    fence = await box.grant("c")
    for _ in range(4):
        await box.pass_time(7000, beating=("t:1",), holding={"c": fence})
        assert await box.registry.register("t:1", boot, "tts", "http://t:1", 1) is RegisterStatus.REFRESHED
        record = await box.worker("t:1")
        assert [(lease.call, lease.fence) for lease in record.leases] == [("c", fence)]
        assert record.busy


async def test_two_logins_never_both_win_the_lock(box: Box, redis_url: str) -> None:
    """The demo looked whether a worker was free, and then took it."""
    await box.up("t:1", "tts")
    clients = [connect(redis_url) for _ in range(8)]
    try:
        answers = await asyncio.gather(*(c.acquire(f"c{i}", ["tts"], TTL_MS, 0) for i, c in enumerate(clients)))
    finally:
        for client in clients:
            await client.close()
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [AcquireStatus.FULL] * 7 + [AcquireStatus.GRANTED]


async def test_a_probe_erases_no_fresh_lease(box: Box) -> None:
    """The demo read a record, probed, and wrote it back: a lease granted in between was gone."""
    boot, fences = await box.up("t:1", "tts", slots=10), []
    for i in range(10):
        fence, _ = await asyncio.gather(box.grant(f"c{i}"), box.registry.probe("t:1", boot, ok=True))
        fences.append(fence)
        await box.registry.probe("t:1", boot, ok=True)
        assert [lease.fence for lease in (await box.worker("t:1")).leases] == fences


async def test_a_stolen_lock_is_noticed_since_its_holder_is_checked(box: Box) -> None:
    """In the demo a lock said that it was taken, not by whom: who had lost it went on as if nothing were."""
    await box.up("t:1", "tts")
    old = await box.grant("c")
    await box.pass_time(TTL_MS, beating=("t:1",))
    new = await box.grant("c")
    assert (await box.renew("c", old)).status is RenewStatus.LOST
    assert (await box.renew("c", new)).status is RenewStatus.OK


async def test_one_failed_probe_drops_no_live_call(box: Box) -> None:
    """The demo unregistered a worker that was once late to answer, and its call with it."""
    boot = await box.up("t:1", "tts")
    fence = await box.grant("c")
    await box.registry.probe("t:1", boot, ok=False)
    renewed = await box.renew("c", fence)
    assert (renewed.status, renewed.moving) == (RenewStatus.OK, ())
    assert [lease.call for lease in (await box.registry.heartbeat("t:1", boot, ready=True)).leases] == ["c"]


async def test_a_logout_by_a_stranger_frees_nobodys_slot(box: Box) -> None:
    """The demo's logout named a worker, and freed it whoever asked."""
    await box.up("t:1", "tts")
    fence = await box.grant("c")
    await box.registry.release("c", fence + 1)
    await box.registry.release("c", fence - 1)
    await box.registry.release("other", fence)
    assert await box.state("c") is CallState.HELD


async def test_a_disconnect_frees_the_slot(box: Box) -> None:
    """In the demo a caller who went away left the worker BUSY until somebody restarted it."""
    await box.up("t:1", "tts")
    await box.registry.release("c", await box.grant("c"))
    assert (await box.worker("t:1")).leases == ()
    assert (await box.acquire("next")).status is AcquireStatus.GRANTED


async def test_a_model_call_does_not_block_the_health_endpoint(redis_url: str, tmp_path: Path) -> None:
    """The demo answered its health checks from a thread beside the model, which held the GIL."""
    with WorkerProcess("tts", redis_url, tmp_path, module=WORKER_MODULE) as worker:
        async with aiohttp.ClientSession() as http:
            model_call = asyncio.create_task(http.get(f"{worker.url}/hold_gil?s=3"))
            slowest_s = silent_s = 0.0
            while not model_call.done():
                began_s = time.monotonic()
                health = await asyncio.to_thread(worker.health)
                slowest_s = max(slowest_s, time.monotonic() - began_s)
                silent_s = max(silent_s, health["beat_age_s"])
                await asyncio.sleep(0.05)
            assert slowest_s < 1, "the model call held the health endpoint up"
            assert silent_s > 2, "the worker itself said nothing meanwhile"
            (await model_call).close()


async def test_an_error_does_not_end_the_monitor(tmp_path: Path) -> None:
    """The demo's monitor thread died of its first exception, and nobody noticed."""
    with RedisServer(tmp_path) as server:
        registry = connect(server.url)
        monitor = Monitor(registry, CollectorRegistry())

        async def works() -> bool:
            """Whether scripts other than this one's own run in the registry."""
            with contextlib.suppress(Unavailable):
                await registry.lookup("nobody")
                before = registry.seq
                await asyncio.sleep(1.1 * REAP_S)
                await registry.lookup("nobody")
                return registry.seq > before + 1
            return False

        try:
            assert not await works()
            await monitor.load()
            await until(works, within_s=4 * REAP_S)
            server.kill()
            await asyncio.sleep(2.5 * REAP_S)  # at least one pass of the monitor has met the error
            server.start()
            await until(works, within_s=6 * REAP_S)
        finally:
            await monitor.close()
            await registry.close()
