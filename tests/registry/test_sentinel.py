"""A Redis under Sentinel whose master is killed: real servers, a real fail-over, real holders and workers."""

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from daemons.clock import SystemClock
from daemons.errors import Unavailable
from daemons.registry import AcquireStatus, CallState, Holder, Registry, RenewStatus, WorkerState, connect
from daemons.registry.keys import SYS
from ops.free_ports import free_port
from ops.redis_server import START_S
from tests.waiting import until
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

DOWN_AFTER_MS = 2000  # shorter, and it takes a new master for dead before it has asked it anything
FAIL_OVER_S = 60.0  # it takes about four seconds; shared machines stall
# Sentinel looks each 10 s by default, and for 30 s after a stall of its own not at all.
PERIODS_MS = {"info-period": 500, "publish-period": 500, "ping-period": 500, "tilt-period": 2000}
EPOCH_FENCES = 1_000_000
SERVICE = "callbox"


class Fleet:
    """A master with a replica and a Sentinel, each on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ports = {name: free_port() for name in ("master", "replica", "sentinel")}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # The first Sentinel of the list is down, as one may be on a bad night.
        self.url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{self.ports['sentinel']}/{SERVICE}/0"

    def start(self, name: str) -> None:
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        port = str(self.ports[name])
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"]
        if name == "replica":
            command += ["--replicaof", "127.0.0.1", str(self.ports["master"])]
        if name == "sentinel":
            conf = folder / "sentinel.conf"
            conf.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor {SERVICE} 127.0.0.1 {self.ports['master']} 1\n"
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {SERVICE} 3000\n"
            )
            command = ["redis-server", str(conf), "--sentinel"]
        self._processes[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def kill(self, name: str) -> None:
        self._processes[name].kill()
        self._processes[name].wait()

    def stop(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGCONT)

    def end(self) -> None:
        for name in self._processes:
            self.kill(name)

    def client(self, name: str) -> Redis:
        return Redis(host="127.0.0.1", port=self.ports[name], socket_timeout=1)

    async def until_replicated(self) -> None:
        """The replica has everything that the master has been told."""

        async def in_sync() -> bool:
            with contextlib.suppress(RedisError):
                async with self.client("master") as master:
                    return int(await master.wait(1, 500)) == 1
            return False

        await until(in_sync, within_s=START_S)

    async def start_sentinel(self) -> None:
        """A Sentinel that looks often; returns once it knows a replica that it could make the master."""
        self.start("sentinel")

        async def hurried() -> bool:
            with contextlib.suppress(RedisError):
                async with self.client("sentinel") as sentinel:
                    options = [str(word) for option in PERIODS_MS.items() for word in option]
                    await sentinel.execute_command("SENTINEL", "DEBUG", *options)  # type: ignore[no-untyped-call]
                    return True
            return False

        await until(hurried, within_s=START_S)

        async def known() -> bool:
            with contextlib.suppress(RedisError):
                async with self.client("sentinel") as sentinel:
                    replicas = await sentinel.sentinel_slaves(SERVICE)
                    return [replica["master-link-status"] for replica in replicas] == ["ok"]
            return False

        await until(known, within_s=START_S)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path)
    try:
        fleet.start("master")
        fleet.start("replica")
        yield fleet
    finally:
        fleet.end()


@pytest.fixture
async def registry(fleet: Fleet) -> AsyncIterator[Registry]:
    await fleet.until_replicated()
    await fleet.start_sentinel()
    registry = connect(fleet.url)
    yield registry
    await registry.close()


async def grant(registry: Registry, call: str, *roles: str) -> int:
    answer = await registry.acquire(call, roles or ("tts",))
    assert answer.status is AcquireStatus.GRANTED
    assert answer.fence is not None
    return answer.fence


async def until_it_answers(registry: Registry) -> list[float]:
    """How long each question took that was in vain, in s; nothing but Unavailable may come of one."""
    took_s: list[float] = []

    async def answers() -> bool:
        began_s = time.monotonic()
        try:
            await registry.reap()
        except Unavailable:
            took_s.append(time.monotonic() - began_s)
            return False
        return True

    await until(answers, within_s=FAIL_OVER_S)
    return took_s


async def test_a_fail_over_keeps_what_was_replicated_and_lifts_every_fence(fleet: Fleet, registry: Registry) -> None:
    await registry.register("t:1", "b", "tts", "http://t:1", 4)
    await registry.heartbeat("t:1", "b", ready=True)
    kept = await grant(registry, "kept")
    async with fleet.client("master") as master:
        assert await master.wait(1, 5000) == 1
        await master.acl_setuser("default", commands=["-psync"])  # so the replica cannot come back
        await master.client_kill_filter(_type="replica")
        lost = await grant(registry, "lost")

    fleet.kill("master")
    vain_s = await until_it_answers(registry)
    assert vain_s, "the fail-over was seen"
    assert max(vain_s) < 5

    assert (await registry.renew("kept", kept)).status is RenewStatus.OK
    assert (await registry.renew("lost", lost)).status is RenewStatus.LOST
    assert [lease.fence for lease in (await registry.heartbeat("t:1", "b", ready=True)).leases] == [kept]
    fresh = await grant(registry, "fresh")
    assert fresh > lost
    assert fresh >= kept + EPOCH_FENCES

    fleet.start("master")  # what was the master comes back, and is made a replica
    await until(lambda: is_replica(fleet, "master"), within_s=FAIL_OVER_S)
    assert (await registry.renew("kept", kept)).status is RenewStatus.OK
    assert await grant(registry, "later") == fresh + 1


async def is_replica(fleet: Fleet, name: str) -> bool:
    async with fleet.client(name) as client:
        with contextlib.suppress(RedisError):
            return bool((await client.role())[0] == b"slave")
    return False


async def test_holders_and_workers_go_on_after_a_fail_over(fleet: Fleet, registry: Registry, tmp_path: Path) -> None:
    with WorkerProcess("tts", fleet.url, tmp_path, module="tests.tiny_daemon") as worker:
        name = f"127.0.0.1:{worker.port}"

        async def state() -> WorkerState:
            return next(each.state for each in (await registry.snapshot()).workers if each.worker == name)

        async def is_available() -> bool:
            return await state() is WorkerState.AVAILABLE

        await until(is_available, within_s=20)
        await registry.register("agent:1", "a", "agent", "http://agent:1", 1)
        await registry.heartbeat("agent:1", "a", ready=True)
        fence = await grant(registry, "c", "agent", "tts")
        (lease,) = (await registry.heartbeat("agent:1", "a", ready=True)).leases
        holder = Holder(registry, lease, SystemClock())
        keeping = asyncio.create_task(holder.keep())
        await fleet.until_replicated()
        boot = worker.health()["boot"]

        fleet.kill("master")
        await until_it_answers(registry)
        before_ms = (await registry.lookup("c")).expires_ms or 0

        async def is_renewed() -> bool:
            return ((await registry.lookup("c")).expires_ms or 0) > before_ms

        await until(is_renewed, within_s=20)
        assert not keeping.done()
        assert (await registry.lookup("c")).fence == fence
        await until(is_available, within_s=20)
        health = worker.health()
        assert (health["boot"], health["registered"], health["leases"]) == (boot, True, 1)
        keeping.cancel()
        await asyncio.wait([keeping])
        await holder.release()


async def test_wakeups_come_again_after_a_fail_over(fleet: Fleet, registry: Registry) -> None:
    await registry.register("t:1", "b", "tts", "http://t:1", 1)
    await registry.heartbeat("t:1", "b", ready=True)
    await fleet.until_replicated()
    async with registry.wakeups("t:1") as wakeups, asyncio.timeout(FAIL_OVER_S):
        await anext(wakeups)
        fleet.kill("master")
        with pytest.raises(Unavailable):
            await anext(wakeups)
    await until_it_answers(registry)
    async with registry.wakeups("t:1") as wakeups, asyncio.timeout(10):
        await anext(wakeups)
        await grant(registry, "c")
        await anext(wakeups)
    assert (await registry.lookup("c")).state is CallState.HELD


async def test_a_master_that_hangs_is_replaced_and_never_written_to_again(fleet: Fleet, registry: Registry) -> None:
    await asyncio.gather(*(registry.reap() for _ in range(8)))  # so the pool has idle connections to it
    await fleet.until_replicated()
    fleet.stop("master")
    try:
        vain_s = await until_it_answers(registry)
        assert vain_s, "the fail-over was seen"
        assert max(vain_s) < 5
    finally:
        fleet.go_on("master")
    async with fleet.client("replica") as new_master:
        before = int(await new_master.hget(SYS, "seq") or 0)
        await asyncio.gather(*(registry.reap() for _ in range(20)))
        assert int(await new_master.hget(SYS, "seq") or 0) == before + 20


async def test_sentinels_that_know_no_master_are_unavailable_in_words(fleet: Fleet) -> None:
    nobody = connect(f"redis+sentinel://127.0.0.1:{free_port()}/{SERVICE}")
    with pytest.raises(Unavailable, match=r"no Sentinel at 127\.0\.0\.1:\d+ knows a living master 'callbox'"):
        await nobody.reap()
    await nobody.close()
    await fleet.until_replicated()
    await fleet.start_sentinel()
    stranger = connect(fleet.url.replace(SERVICE, "another"))
    with pytest.raises(Unavailable, match="knows a living master 'another'"):
        await stranger.reap()
    await stranger.close()
