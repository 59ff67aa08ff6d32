"""What the monitor exports of a real registry, also after restarts of either."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from daemons.errors import Unavailable
from daemons.monitor import metrics as metrics_module
from daemons.monitor.server import AuditLog, Monitor, place
from daemons.registry import Registry, connect
from daemons.wire import CALL_ROLES, ProgramEvent
from ops.redis_server import RedisServer
from tests.waiting import until

pytestmark = pytest.mark.integration


class Watcher:
    """A monitor that looks when it is told to."""

    def __init__(self, registry: Registry, roles: Sequence[str] = CALL_ROLES) -> None:
        self.metrics = CollectorRegistry()
        self._monitor = Monitor(registry, self.metrics, roles)

    async def look(self) -> None:
        await self._monitor.reap()

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.get_sample_value(f"callbox_{name}", labels)

    async def __aenter__(self) -> "Watcher":
        await self.look()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._monitor.close()


@pytest.fixture
async def registry(redis_url: str, redis: Redis) -> AsyncIterator[Registry]:
    registry = connect(redis_url)
    yield registry
    await registry.close()


async def add_worker(registry: Registry, worker: str, boot: str = "b", slots: int = 1) -> None:
    await registry.register(worker, boot, "tts", "http://127.0.0.1:9", slots)
    await registry.heartbeat(worker, boot, ready=True)


async def lose_a_call(registry: Registry, call: str) -> None:
    assert (await registry.acquire(call, ["tts"], ttl_ms=1)).fence
    for _ in range(20):
        if call in (await registry.reap()).ended:
            return
    raise AssertionError("its lease did not end")


async def test_the_roles_of_a_call_are_there_before_any_worker_is(registry: Registry) -> None:
    async with Watcher(registry) as watcher:
        for role in ("agent", "stt", "llm", "tts"):
            assert watcher.value("registry_workers", role=role, state="available") == 0
            assert watcher.value("registry_slots", role=role) == 0
        assert watcher.value("registry_losses_total", what="call") == 0
        assert watcher.value("registry_last_loss_timestamp_seconds", what="member") == 0


async def test_a_role_that_no_call_needs_is_not_missing(registry: Registry) -> None:
    async with Watcher(registry, roles=("agent", "llm", "tts")) as watcher:
        assert watcher.value("registry_workers", role="llm", state="available") == 0
        assert watcher.value("registry_workers", role="stt", state="available") is None


async def test_a_loss_outlives_the_monitor(registry: Registry, redis: Redis) -> None:
    await add_worker(registry, "t:1")
    async with Watcher(registry) as before:
        await lose_a_call(registry, "c1")
        await before.look()
        assert before.value("registry_losses_total", what="call") == 1
        lost_s = before.value("registry_last_loss_timestamp_seconds", what="call")
    now_s, _ = await redis.time()
    assert lost_s is not None
    assert abs(now_s - lost_s) < 10
    await lose_a_call(registry, "c2")  # while nobody watches
    async with Watcher(registry) as after, Watcher(registry) as beside:
        for watcher in (after, beside):
            seen_s = watcher.value("registry_last_loss_timestamp_seconds", what="call")
            assert seen_s is not None
            assert seen_s > lost_s
            assert watcher.value("registry_losses_total", what="call") == 0, "counters begin with the process"
        await lose_a_call(registry, "c3")
        for watcher in (after, beside):
            await watcher.look()
            await watcher.look()
            assert watcher.value("registry_losses_total", what="call") == 1


async def test_a_worker_is_healthy_missing_or_forgotten(registry: Registry) -> None:
    for worker in ("t:1", "t:2", "t:3"):
        await add_worker(registry, worker)
    for _ in range(3):
        await registry.probe("t:2", "b", ok=False)
    await registry.deregister("t:3", "b")
    async with Watcher(registry) as watcher:
        assert watcher.value("registry_worker_healthy", role="tts", worker="t:1") == 1
        assert watcher.value("registry_worker_healthy", role="tts", worker="t:2") == 0
        assert watcher.value("registry_worker_healthy", role="tts", worker="t:3") is None, "it said goodbye"


async def test_a_worker_that_went_without_a_word_is_missed_until_it_is_back(redis: Redis) -> None:
    now_ms = 1_700_000_000_000
    registry = Registry(redis, lambda: now_ms)
    await add_worker(registry, "t:1")
    for _ in range(20):  # a script moves the registry's clock by two seconds at most
        now_ms += 2000
        await registry.reap()
    async with Watcher(registry) as watcher, Watcher(registry) as started_later:
        for each in (watcher, started_later):
            assert each.value("registry_workers", role="tts", state="gone") == 1
            assert each.value("registry_worker_healthy", role="tts", worker="t:1") == 0
        await add_worker(registry, "t:1", boot="b2")
        await watcher.look()
        assert watcher.value("registry_worker_healthy", role="tts", worker="t:1") == 1


async def test_trouble_with_a_program_goes_up_and_clears(registry: Registry) -> None:
    def crash_loop(watcher: Watcher) -> float | None:
        return watcher.value("program_trouble_timestamp_seconds", program="tts", kind="crash_loop")

    async with Watcher(registry) as watcher:
        assert crash_loop(watcher) is None
        await registry.note(ProgramEvent.CRASH_LOOP, {"program": "tts", "ends": "5"})
        await registry.note(ProgramEvent.FATAL, {"program": "nginx"})
        await registry.note(ProgramEvent.STARTED_AGAIN, {"program": "tts"})
        await watcher.look()
        assert crash_loop(watcher), "started again is not out of the loop"
        async with Watcher(registry) as started_later:
            assert crash_loop(started_later) == crash_loop(watcher)
        await registry.note(ProgramEvent.CRASH_LOOP_OVER, {"program": "tts"})
        await watcher.look()
        assert crash_loop(watcher) == 0
        assert watcher.value("program_trouble_timestamp_seconds", program="nginx", kind="program_fatal")


async def test_a_registry_that_lost_its_data_is_read_from_its_beginning(registry: Registry, redis: Redis) -> None:
    await registry.note(ProgramEvent.CRASH_LOOP, {"program": "tts"})
    await add_worker(registry, "t:1")
    async with Watcher(registry) as watcher:
        assert watcher.value("program_trouble_timestamp_seconds", program="tts", kind="crash_loop")
        await redis.flushall()
        await watcher.look()
        assert watcher.value("program_trouble_timestamp_seconds", program="tts", kind="crash_loop") is None
        assert watcher.value("registry_slots", role="tts") == 0
        await add_worker(registry, "t:1")
        await watcher.look()
        assert watcher.value("registry_events_total", kind="registered") == 1
        assert watcher.value("registry_slots", role="tts") == 1


async def test_a_new_log_whose_clock_stands_before_the_old_one_is_read_too(registry: Registry) -> None:
    """As after a loss of data on a machine whose clock was set back."""
    shown = metrics_module.RegistryMetrics(CollectorRegistry())
    await registry.note(ProgramEvent.STALLED, {"program": "tts"})
    audit_log = AuditLog(registry, shown)
    snapshot = await registry.snapshot()
    await audit_log.read(snapshot)
    audit_log._at = "99999999999999-0"
    await audit_log.read(snapshot)
    assert place(audit_log._at) == place(snapshot.last_event)


async def test_nothing_stale_is_shown_while_the_registry_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_module, "STALE_S", 0.3)
    with RedisServer(tmp_path) as server:
        registry = connect(server.url)
        await add_worker(registry, "t:1", slots=3)
        async with Watcher(registry) as watcher:
            assert watcher.value("registry_up") == 1
            assert watcher.value("registry_slots", role="tts") == 3
            server.kill()
            with pytest.raises(Unavailable):
                await watcher.look()
            await until(lambda: watcher.value("registry_up") == 0, within_s=5)
            assert watcher.value("registry_slots", role="tts") is None
            server.start()
            await watcher.look()
            assert watcher.value("registry_up") == 1
            assert watcher.value("registry_slots", role="tts") == 3
        await registry.close()


async def test_names_follow_prometheus_conventions(registry: Registry) -> None:
    await add_worker(registry, "t:1")
    await registry.note(ProgramEvent.CRASH_LOOP, {"program": "tts"})
    async with Watcher(registry) as watcher:
        families = list(text_string_to_metric_families(generate_latest(watcher.metrics).decode()))
    ours = [family for family in families if not family.name.startswith("process_") and "_created" not in family.name]
    assert len(ours) > 10
    for family in ours:
        assert family.name.startswith("callbox_"), family.name
        assert family.documentation
        assert not any(unit in family.name for unit in ("_ms", "milli", "_mb", "percent")), "base units alone"
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)
