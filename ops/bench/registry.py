"""What the registry's scripts cost: acquire, renew and release beside a script that does nothing, in the same run."""

import asyncio
import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Literal

from redis.asyncio import Redis

from daemons.registry import AcquireStatus, Registry, RenewStatus, connect
from daemons.runtime import HEARTBEAT_S
from ops.figures import Bound, Report, Summary
from ops.redis_server import RedisServer
from ops.run import StepFailed

ROLES = ("agent", "stt", "llm", "tts")
SLOTS = 64  # of each worker: nobody waits, so a grant is measured and no queue
SLICE_S = 0.5  # with many clients, the registry and the no-op take turns of this length
NO_OP = "return 1"
ONE_WRITE = "return redis.call('INCR', KEYS[1])"
P99_LIMIT_MS = 100.0  # a tenth of the time-out that every caller gives a script
LEAST_SCRIPTS_PER_S = 300.0  # 64 calls on 8 workers need about 30, mostly their renewals


class Stopwatch:
    """How long each script took, in ms, by name."""

    def __init__(self) -> None:
        self.samples_ms: defaultdict[str, list[float]] = defaultdict(list)
        self.busy_s = 0.0

    @contextlib.contextmanager
    def timing(self, name: str) -> Iterator[None]:
        began_s = time.perf_counter()
        yield
        self.samples_ms[name].append((time.perf_counter() - began_s) * 1000)

    @property
    def scripts_per_s(self) -> float:
        return sum(map(len, self.samples_ms.values())) / self.busy_s


async def measure(rounds: int, clients: int, seconds: float, on_round: Callable[[int], None]) -> Report:
    """One client for `rounds`, then many for `seconds`, on a Redis of its own. Raises StepFailed and Unavailable."""
    with tempfile.TemporaryDirectory(prefix="callbox-bench-") as folder, RedisServer(Path(folder)) as server:
        async with _workers(server.url), Redis.from_url(server.url) as bare:
            redis_version = (await bare.info("server"))["redis_version"]
            alone = await _alone(server.url, bare, rounds, on_round)
            together, no_ops = await _together(server.url, clients, seconds)
    summaries = {name: Summary.of(samples) for name, samples in alone.samples_ms.items()}
    crowded = {f"{name}, {clients} clients": Summary.of(samples) for name, samples in together.samples_ms.items()}
    no_op = summaries["no-op script"]
    tail: Literal["p99", "max"] = "max" if no_op.p99 is None else "p99"
    return Report(
        "registry: what its scripts cost",
        facts={
            "redis": redis_version,
            "on disk before each answer": "yes (appendfsync always)",
            "a call holds": " ".join(ROLES),
            "clients": f"1, then {clients} in one process",
        },
        samples=summaries | crowded,
        counts={
            f"registry scripts a second, {clients} clients": round(together.scripts_per_s),
            f"no-op scripts a second, {clients} clients": round(no_ops.scripts_per_s),
        },
        ratios={
            f"{name} to the no-op, {which}": getattr(summaries[name], which) / getattr(no_op, which)
            for which in ("median", tail)
            for name in ("one write", "acquire", "renew", "release")
        }
        | {f"no-ops to registry scripts, {clients} clients": no_ops.scripts_per_s / together.scripts_per_s},
        bounds=[
            *(
                Bound(f"{name}, {tail}", getattr(summaries[name], tail), P99_LIMIT_MS, "ms")
                for name in ("acquire", "renew", "release")
            ),
            Bound(f"scripts a second, {clients} clients", together.scripts_per_s, LEAST_SCRIPTS_PER_S, "", "at least"),
        ],
    )


@contextlib.asynccontextmanager
async def _workers(url: str) -> AsyncIterator[None]:
    """Two workers of each role, ready, whose hearts beat."""
    registry = connect(url)
    workers = [(role, f"{role}:{number}") for role in ROLES for number in (1, 2)]

    async def beat() -> None:
        while True:
            for _, worker in workers:
                await registry.heartbeat(worker, "boot", ready=True)
            await asyncio.sleep(HEARTBEAT_S)

    for role, worker in workers:
        await registry.register(worker, "boot", role, f"http://{worker}", SLOTS)
        await registry.heartbeat(worker, "boot", ready=True)
    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.wait([beating])
        await registry.close()


async def _alone(url: str, bare: Redis, rounds: int, on_round: Callable[[int], None]) -> Stopwatch:
    """Each round runs every script once, so that whatever slows the machine down slows them all."""
    watch, registry = Stopwatch(), connect(url)
    no_op, one_write = [await bare.script_load(source) for source in (NO_OP, ONE_WRITE)]
    try:
        await _call(registry, "warm-up", Stopwatch())
        for number in range(rounds):
            with watch.timing("no-op script"):
                await bare.evalsha(no_op, 0)
            with watch.timing("one write"):
                await bare.evalsha(one_write, 1, "{callbox}:bench")
            await _call(registry, f"alone-{number}", watch)
            on_round(1)
    finally:
        await registry.close()
    return watch


async def _together(url: str, clients: int, seconds: float) -> tuple[Stopwatch, Stopwatch]:
    """`seconds` each of calls and of no-ops, all clients at once, in turns."""
    calls, no_ops = Stopwatch(), Stopwatch()
    registries = [connect(url) for _ in range(clients)]
    bares = [Redis.from_url(url) for _ in range(clients)]
    no_op = await bares[0].script_load(NO_OP)
    names = (f"together-{number}" for number in range(10**9))

    async def call(client: int) -> None:
        await _call(registries[client], next(names), calls)

    async def do_nothing(client: int) -> None:
        with no_ops.timing("no-op script"):
            await bares[client].evalsha(no_op, 0)

    try:
        for _ in range(max(1, round(seconds / SLICE_S))):
            for watch, work in ((calls, call), (no_ops, do_nothing)):
                began_s = time.perf_counter()
                await asyncio.gather(*(_until(began_s + SLICE_S, work, client) for client in range(clients)))
                watch.busy_s += time.perf_counter() - began_s
    finally:
        await asyncio.gather(*(registry.close() for registry in registries), *(bare.aclose() for bare in bares))
    return calls, no_ops


async def _until(deadline_s: float, work: Callable[[int], Awaitable[None]], client: int) -> None:
    while time.perf_counter() < deadline_s:
        await work(client)


async def _call(registry: Registry, call: str, watch: Stopwatch) -> None:
    with watch.timing("acquire"):
        granted = await registry.acquire(call, ROLES)
    if granted.status is not AcquireStatus.GRANTED or granted.fence is None:
        raise StepFailed(f"{call} was not granted but {granted.status}")
    with watch.timing("renew"):
        renewed = await registry.renew(call, granted.fence)
    if renewed.status is not RenewStatus.OK:
        raise StepFailed(f"{call} was lost")
    with watch.timing("release"):
        await registry.release(call, granted.fence)
