"""What lies between a caller and the scripts: failures, restarts, wake-ups, the audit log, concurrency."""

import asyncio
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

from daemons.errors import BadRequest, Unavailable
from daemons.registry import AcquireStatus, Registry, RenewStatus, connect
from ops.free_ports import free_port
from ops.redis_server import RedisServer
from tests.registry.box import Box

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
        server.kill()
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
            server.kill()
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
