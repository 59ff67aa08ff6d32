"""register, heartbeat, probe, drain, deregister, and how workers age."""

import pytest

from daemons.errors import BadRequest
from daemons.registry import (
    AcquireStatus,
    CallState,
    DrainStatus,
    Heartbeat,
    HeartbeatStatus,
    Probed,
    ProbeStatus,
    RegisterStatus,
    RenewStatus,
    WorkerState,
)
from daemons.registry.keys import RETIRED, SYS, WORKER, WORKERS
from tests.registry.box import Box

pytestmark = pytest.mark.integration


async def register(box: Box, worker: str, boot: str, role: str = "tts", slots: int = 1) -> RegisterStatus:
    return await box.registry.register(worker, boot, role, f"http://{worker}", slots, 0, {"version": "1"})


async def probe(box: Box, worker: str, *results: bool) -> Probed:
    for ok in results:
        answer = await box.registry.probe(worker, box.boot(worker), ok)
    return answer


async def test_a_worker_starts_and_becomes_available_when_ready(box: Box) -> None:
    assert await register(box, "w:1", "b1", slots=2) is RegisterStatus.CREATED
    assert await box.registry.heartbeat("w:1", "b1", ready=False) == Heartbeat(HeartbeatStatus.OK, WorkerState.STARTING)
    assert (await box.acquire("c", "tts")).status is AcquireStatus.QUEUED
    assert await box.registry.heartbeat("w:1", "b1", ready=True) == Heartbeat(HeartbeatStatus.OK, WorkerState.AVAILABLE)
    record = await box.worker("w:1")
    assert (record.boot, record.role, record.addr, record.slots) == ("b1", "tts", "http://w:1", 2)
    assert record.meta == {"version": "1"}


async def test_a_worker_without_slots_is_refused(box: Box) -> None:
    with pytest.raises(BadRequest, match="at least one slot"):
        await register(box, "w:1", "b1", slots=0)


async def test_a_repeated_register_writes_the_heartbeat_and_nothing_else(box: Box) -> None:
    boot = await box.up("w:1", "tts")
    fence = await box.grant("c")
    await box.registry.drain("w:1", boot)
    before = await box.registry.snapshot()
    box.time.ms += 1500
    assert await register(box, "w:1", boot, role="other", slots=9) is RegisterStatus.REFRESHED
    after = await box.registry.snapshot()
    assert after.calls[0].bundle == before.calls[0].bundle
    assert after.workers[0].leases == before.workers[0].leases
    assert (after.workers[0].state, after.workers[0].role, after.workers[0].slots) == (WorkerState.DRAINING, "tts", 1)
    assert after.workers[0].hb_age_ms == 0
    assert (await box.renew("c", fence)).status is RenewStatus.OK


async def test_a_new_boot_retires_its_predecessor_and_revokes_its_leases(box: Box) -> None:
    old = await box.up("w:1", "tts")
    fence = await box.grant("c")
    new = await box.up("w:1", "tts")
    assert (await box.worker("w:1")).leases == ()
    assert (await box.renew("c", fence)).moving == ("tts",)
    assert (await box.registry.heartbeat("w:1", old, ready=True)).status is HeartbeatStatus.UNKNOWN
    assert (await box.registry.probe("w:1", old, ok=True)).status is ProbeStatus.UNKNOWN
    assert await box.registry.drain("w:1", old) is DrainStatus.UNKNOWN
    assert await box.registry.deregister("w:1", old) is DrainStatus.UNKNOWN
    assert (await box.worker("w:1")).boot == new


async def test_a_retired_boot_never_returns(box: Box) -> None:
    first = await box.up("w:1", "tts")
    second = await box.up("w:1", "tts")
    assert await register(box, "w:1", first) is RegisterStatus.STALE_BOOT
    await box.registry.deregister("w:1", second)
    assert await register(box, "w:1", first) is RegisterStatus.STALE_BOOT
    await box.up("w:1", "tts")
    assert await register(box, "w:1", second) is RegisterStatus.STALE_BOOT


async def test_an_agent_that_restarts_ends_its_calls_with_all_their_slots(box: Box) -> None:
    await box.up("a:1", "agent")
    await box.up("t:1", "tts")
    fence = await box.grant("c", "agent", "tts")
    await box.up("a:1", "agent")
    assert (await box.renew("c", fence)).status is RenewStatus.LOST
    assert (await box.worker("t:1")).leases == ()


async def test_three_bad_probes_make_unhealthy_and_two_good_ones_heal(box: Box) -> None:
    await box.up("w:1", "tts")
    assert await probe(box, "w:1", False, False, True, False, False) == Probed(ProbeStatus.OK, WorkerState.AVAILABLE)
    assert (await probe(box, "w:1", False)).state is WorkerState.UNHEALTHY
    assert (await box.registry.heartbeat("w:1", box.boot("w:1"), ready=True)).state is WorkerState.UNHEALTHY
    assert (await probe(box, "w:1", True, False, True)).state is WorkerState.UNHEALTHY
    assert (await probe(box, "w:1", True)).state is WorkerState.AVAILABLE


async def test_good_probes_do_not_heal_without_a_fresh_heartbeat(box: Box) -> None:
    await box.up("w:1", "tts")
    await box.pass_time(10_001)
    assert (await probe(box, "w:1", True, True)).state is WorkerState.UNHEALTHY
    await box.registry.heartbeat("w:1", box.boot("w:1"), ready=True)
    assert (await probe(box, "w:1", True)).state is WorkerState.AVAILABLE


async def test_probes_before_a_silence_do_not_heal_after_it(box: Box) -> None:
    await box.up("w:1", "tts")
    await probe(box, "w:1", True, True)
    await box.pass_time(10_001)
    await box.registry.heartbeat("w:1", box.boot("w:1"), ready=True)
    assert (await probe(box, "w:1", True)).state is WorkerState.UNHEALTHY
    assert (await probe(box, "w:1", True)).state is WorkerState.AVAILABLE


async def test_a_worker_that_was_never_ready_heals_to_starting(box: Box) -> None:
    await register(box, "w:1", "b1")
    for ok in (False, False, False, True, True):
        answer = await box.registry.probe("w:1", "b1", ok)
    assert answer.state is WorkerState.STARTING


async def test_unhealthy_gets_no_new_leases_and_loses_none(box: Box) -> None:
    await box.up("w:1", "tts", slots=2)
    fence = await box.grant("c1")
    await probe(box, "w:1", False, False, False)
    assert (await box.acquire("c2")).status is AcquireStatus.QUEUED
    assert await box.renew("c1", fence) == await box.renew("c1", fence)
    assert (await box.renew("c1", fence)).moving == ()
    await probe(box, "w:1", True, True)
    assert await box.state("c2") is CallState.RESERVED


async def test_draining_gets_no_new_leases_and_is_not_made_available_again(box: Box) -> None:
    boot = await box.up("w:1", "tts", slots=2)
    fence = await box.grant("c1")
    assert await box.registry.drain("w:1", boot) is DrainStatus.OK
    assert await box.registry.drain("w:1", boot) is DrainStatus.OK
    assert (await box.registry.heartbeat("w:1", boot, ready=True)).state is WorkerState.DRAINING
    assert (await probe(box, "w:1", False, False, False, True, True)).state is WorkerState.DRAINING
    assert (await box.renew("c1", fence)).moving == ("tts",)
    assert (await box.acquire("c2")).status is AcquireStatus.QUEUED


async def test_deregister_is_gone_at_once_and_may_come_back(box: Box) -> None:
    boot = await box.up("w:1", "tts")
    fence = await box.grant("c")
    assert await box.registry.deregister("w:1", boot) is DrainStatus.OK
    assert await box.registry.deregister("w:1", boot) is DrainStatus.OK
    assert (await box.worker("w:1")).state is WorkerState.GONE
    assert (await box.renew("c", fence)).moving == ("tts",)
    assert (await box.acquire("other")).status is AcquireStatus.UNAVAILABLE
    assert await register(box, "w:1", boot) is RegisterStatus.CREATED


async def test_silence_makes_unhealthy_then_gone_and_gone_owns_nothing(box: Box) -> None:
    boot = await box.up("w:1", "tts")
    fence = await box.grant("c")
    await box.pass_time(10_000, holding={"c": fence})
    assert (await box.worker("w:1")).state is WorkerState.AVAILABLE
    await box.pass_time(1, holding={"c": fence})
    assert (await box.worker("w:1")).state is WorkerState.UNHEALTHY
    await box.pass_time(19_999, holding={"c": fence})
    assert len((await box.worker("w:1")).leases) == 1
    await box.pass_time(1, holding={"c": fence})
    record = await box.worker("w:1")
    assert (record.state, record.leases) == (WorkerState.GONE, ())
    assert (await box.renew("c", fence)).moving == ("tts",)
    assert (await box.registry.heartbeat("w:1", boot, ready=True)).status is HeartbeatStatus.UNKNOWN
    assert (await box.registry.probe("w:1", boot, ok=True)).status is ProbeStatus.UNKNOWN
    assert await register(box, "w:1", boot) is RegisterStatus.CREATED
    assert (await box.worker("w:1")).state is WorkerState.STARTING


async def test_a_worker_gone_for_a_day_is_forgotten(box: Box) -> None:
    boot = await box.up("w:1", "tts")
    await box.registry.deregister("w:1", boot)
    await box.redis.hincrby("{callbox}:sys", "v", 24 * 3600 * 1000 + 1)
    assert (await box.registry.snapshot()).workers == ()
    assert not [key async for key in box.redis.scan_iter("*w:1*")]


async def test_a_worker_that_came_back_is_not_forgotten(box: Box) -> None:
    boot = await box.up("w:1", "tts")
    await box.registry.deregister("w:1", boot)
    assert await register(box, "w:1", boot) is RegisterStatus.CREATED
    tomorrow_ms = box.time.ms + 24 * 3600 * 1000 + 1  # it has beaten all the day
    await box.redis.hset(SYS, "v", str(tomorrow_ms))
    await box.redis.hset(f"{WORKER}w:1", "hb", str(tomorrow_ms))
    await box.redis.zadd(WORKERS, {"w:1": tomorrow_ms})
    assert (await box.registry.heartbeat("w:1", boot, ready=True)).state is WorkerState.AVAILABLE


async def test_retired_boots_are_remembered_for_a_month_and_not_without_end(box: Box) -> None:
    first = await box.up("w:1", "tts")
    await box.redis.zadd(f"{RETIRED}w:1", {f"older {i}": i for i in range(10_000)})
    await box.up("w:1", "tts")
    assert await box.redis.zcard(f"{RETIRED}w:1") == 10_000
    assert await register(box, "w:1", first) is RegisterStatus.STALE_BOOT
    assert 29 * 24 * 3600 < await box.redis.ttl(f"{RETIRED}w:1") <= 30 * 24 * 3600


async def test_heartbeat_tells_what_is_held_and_hides_what_is_only_reserved(box: Box) -> None:
    boot = await box.up("w:1", "tts", slots=2)
    first = await box.grant("c1")
    second = await box.grant("c2")
    await box.acquire("c3")
    await box.registry.release("c2", second)
    assert await box.state("c3") is CallState.RESERVED
    leases = (await box.registry.heartbeat("w:1", boot, ready=True)).leases
    assert [(lease.call, lease.slot, lease.fence) for lease in leases] == [("c1", 0, first)]
    assert leases[0].bundle["tts"].worker == "w:1"
    assert leases[0].expires_ms == box.time.ms + 15_000
    await box.acquire("c3")
    assert [lease.call for lease in (await box.registry.heartbeat("w:1", boot, ready=True)).leases] == ["c1", "c3"]
