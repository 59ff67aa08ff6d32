"""What lies between a caller and the scripts: failures, restarts, wake-ups, the audit log, concurrency."""

import asyncio
import random
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from daemons.errors import BadRequest, Unavailable
from daemons.registry import AcquireStatus, Registry, RenewStatus, connect
from tests.ports import free_port
from tests.redis_server import RedisServer
from tests.registry.box import TTL_MS, Box, Time, check_invariants

pytestmark = pytest.mark.integration


async def test_no_server_is_unavailable_in_words_and_soon() -> None:
    registry = connect(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(Unavailable, match="registry does not answer"):
        await registry.reap()
    await registry.close()


async def test_a_server_that_says_nothing_is_given_up_after_a_second() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        registry = connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await registry.reap()
        assert time.monotonic() - started < 1.5
        await registry.close()


async def test_a_restart_of_redis_ends_no_call_and_fences_go_on_rising(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        registry = connect(server.url)
        await registry.register("t:1", "b", "tts", "http://t:1", 2)
        await registry.heartbeat("t:1", "b", ready=True)
        before = await registry.acquire("c1", ["tts"])
        assert before.fence is not None
        server.stop()
        with pytest.raises(Unavailable):
            await registry.renew("c1", before.fence)
        server.start()
        assert (await registry.renew("c1", before.fence)).status is RenewStatus.OK
        after = await registry.acquire("c2", ["tts"])
        assert after.fence is not None
        assert after.fence > before.fence
        await registry.close()


async def test_another_redis_may_lack_the_last_grants_so_fences_leap(box: Box) -> None:
    await box.up("t:1", "tts", slots=2)
    before = await box.grant("c1")
    await box.redis.hset("{callbox}:sys", "run", "another server's")
    assert await box.grant("c2") > before + 1000


async def test_scripts_that_the_server_has_forgotten_are_sent_again(box: Box) -> None:
    await box.registry.reap()
    await box.redis.script_flush()
    await box.registry.reap()


@pytest.mark.parametrize("decode", [True, False])
async def test_any_redis_client_will_do(redis_url: str, box: Box, decode: bool) -> None:
    await box.up("t:1", "tts")
    async with Redis.from_url(redis_url, decode_responses=decode) as client:
        registry = Registry(client, box.time)
        assert (await registry.acquire("c", ["tts"])).status is AcquireStatus.GRANTED
        assert (await registry.events())[-1].data["call"] == "c"


async def test_wakeups_tell_of_grants_and_releases(box: Box, redis_url: str) -> None:
    await box.up("t:1", "tts")
    listener = connect(redis_url)
    async with listener.wakeups("t:1") as wakeups, asyncio.timeout(5):
        await anext(wakeups)
        fence = await box.grant("c")
        await anext(wakeups)
        await box.registry.release("c", fence)
        await anext(wakeups)
    await listener.close()


async def test_wakeups_end_with_the_connection(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        registry = connect(server.url)
        async with registry.wakeups("t:1") as wakeups, asyncio.timeout(5):
            await anext(wakeups)
            server.stop()
            with pytest.raises(Unavailable):
                await anext(wakeups)
        with pytest.raises(Unavailable):
            async with registry.wakeups("t:1"):
                pass
        await registry.close()


async def test_the_audit_log_tells_what_happened_in_order(box: Box) -> None:
    await box.up("t:1", "tts")
    fence = await box.grant("c1")
    await box.acquire("c2")
    await box.registry.release("c1", fence)
    start = (await box.registry.snapshot()).last_event
    await box.acquire("c2")
    await box.registry.deregister("t:1", box.boot("t:1"))
    kinds = ["registered", "available", "granted", "queued", "released", "reserved", "granted", "gone", "revoked"]
    assert await box.kinds() == kinds
    tail = await box.registry.events(since=start)
    assert [event.kind for event in tail] == kinds[6:]
    assert tail[0].data["call"] == "c2"
    assert tail[0].data["members"] == "tts=t:1/0"
    sequence = [event.seq for event in await box.registry.events()]
    assert sequence == sorted(sequence)
    assert [event.kind for event in await box.registry.events(count=2)] == kinds[:2]


@pytest.mark.parametrize("name", ["kind", "seq", "at"])
async def test_a_note_cannot_pass_for_another_entry(box: Box, name: str) -> None:
    with pytest.raises(BadRequest, match=name):
        await box.registry.note("fatal", {"program": "tts", name: "1"})
    assert await box.registry.events() == ()


async def test_every_script_has_its_place_in_one_sequence(box: Box, redis_url: str) -> None:
    clients = [connect(redis_url) for _ in range(4)]

    async def run(client: Registry) -> list[int]:
        places = []
        for _ in range(10):
            await client.reap()
            places.append(client.seq)
        return places

    taken = await asyncio.gather(*map(run, clients))
    for client, places in zip(clients, taken, strict=True):
        assert places == sorted(places)
        await client.close()
    assert sorted(place for places in taken for place in places) == list(range(1, 41))


async def test_random_lives_never_break_an_invariant(redis: Redis) -> None:
    rng = random.Random(20240607)
    box = Box(redis, Time())
    registry, workers = box.registry, {"a:1": "agent", "a:2": "agent", "t:1": "tts", "t:2": "tts", "s:1": "stt"}
    calls, held = [f"c{i}" for i in range(8)], dict[str, int]()
    fences: dict[tuple[str, int], int] = {}
    for worker, role in workers.items():
        await box.up(worker, role, slots=2)
    for _ in range(1500):
        worker, call = rng.choice(list(workers)), rng.choice(calls)
        box.time.ms += rng.choice([0, 10, 300, 300, 1000, 2500, -5000])
        match rng.randrange(14):
            case 0:
                await box.up(worker, workers[worker], slots=rng.choice([1, 2]))
            case 1:
                await registry.drain(worker, box.boot(worker))
            case 2:
                await registry.deregister(worker, box.boot(worker))
            case 3:
                await registry.probe(worker, box.boot(worker), rng.random() < 0.5)
            case 4 | 5:
                for each in workers:
                    await registry.heartbeat(each, box.boot(each), ready=True)
            case 6 | 7 | 8:
                answer = await registry.acquire(call, rng.choice([["agent", "stt", "tts"], ["tts"]]), TTL_MS, 4)
                if answer.fence is not None:
                    held[call] = answer.fence
            case 9 | 10:
                if (await registry.renew(call, held.get(call, 0), TTL_MS)).status is RenewStatus.LOST:
                    held.pop(call, None)
            case 11:
                await registry.swap(call, held.get(call, 0), "tts", TTL_MS)
            case 12:
                await registry.release(call, held.get(call, 0))
            case 13:
                await registry.cancel(call)
        check_invariants(await registry.snapshot(), fences)
    kinds = set(await box.kinds())
    assert {"granted", "reserved", "swapped", "revoked", "lost", "expired", "unhealthy", "gone", "retired"} <= kinds
