"""A box of workers in a registry whose time stands still until a test moves it."""

from collections import Counter

from redis.asyncio import Redis

from daemons.registry import (
    Acquired,
    AcquireStatus,
    CallState,
    HeartbeatStatus,
    RegisterStatus,
    Registry,
    Renewed,
    Snapshot,
    WorkerRecord,
    WorkerState,
)

STEP_MS = 2000  # the most that one script may move the virtual clock
TTL_MS = 15_000
START_MS = 1_700_000_000_000


class Time:
    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


class Box:
    def __init__(self, redis: Redis, time: Time) -> None:
        self.redis = redis
        self.time = time
        self.registry = Registry(redis, now_ms=time)
        self._boots: dict[str, str] = {}

    def boot(self, worker: str) -> str:
        return self._boots[worker]

    async def up(self, worker: str, role: str, slots: int = 1, max_fence: int = 0) -> str:
        """A new boot of this worker, registered and ready."""
        generation = int(self._boots.get(worker, "0-0").rpartition("-")[2]) + 1
        boot = self._boots[worker] = f"{worker}-{generation}"
        answer = await self.registry.register(worker, boot, role, f"http://{worker}", slots, max_fence)
        assert answer is RegisterStatus.CREATED
        beat = await self.registry.heartbeat(worker, boot, ready=True)
        assert (beat.status, beat.state) == (HeartbeatStatus.OK, WorkerState.AVAILABLE)
        return boot

    async def acquire(self, call: str, *roles: str, queue_max: int = 10) -> Acquired:
        return await self.registry.acquire(call, roles or ("tts",), TTL_MS, queue_max)

    async def grant(self, call: str, *roles: str) -> int:
        """The fence of a call that must be granted at once."""
        answer = await self.acquire(call, *roles)
        assert answer.status is AcquireStatus.GRANTED
        assert answer.fence is not None
        return answer.fence

    async def renew(self, call: str, fence: int) -> Renewed:
        return await self.registry.renew(call, fence, TTL_MS)

    async def state(self, call: str) -> CallState:
        return (await self.registry.lookup(call)).state

    async def worker(self, worker: str) -> WorkerRecord:
        return next(record for record in (await self.registry.snapshot()).workers if record.worker == worker)

    async def pass_time(self, ms: int, *, beating: tuple[str, ...] = (), holding: dict[str, int] | None = None) -> None:
        """Let time pass, reaping as the monitor does, while some workers beat and some calls are renewed."""
        while ms > 0:
            step = min(ms, 1000)
            ms -= step
            self.time.ms += step
            for worker in beating:
                await self.registry.heartbeat(worker, self.boot(worker), ready=True)
            for call, fence in (holding or {}).items():
                await self.renew(call, fence)
            await self.registry.reap()

    async def kinds(self) -> list[str]:
        return [event.kind for event in await self.registry.events(count=10_000)]


def check_invariants(snapshot: Snapshot, fences: dict[tuple[str, int], int]) -> None:
    """What must hold at every moment. `fences` remembers the highest fence of each slot between calls of this."""
    calls = {call.call: call for call in snapshot.calls}
    assert len({worker.worker for worker in snapshot.workers}) == len(snapshot.workers)
    for worker in snapshot.workers:
        assert len(worker.leases) <= worker.slots
        assert max(Counter(lease.slot for lease in worker.leases).values(), default=1) == 1
        assert all(0 <= lease.slot < worker.slots for lease in worker.leases)
        if worker.state is WorkerState.GONE:
            assert not worker.leases
        for lease in worker.leases:
            member = calls[lease.call].bundle[worker.role]
            assert (member.worker, member.slot, member.boot, member.fence) == (
                worker.worker,
                lease.slot,
                worker.boot,
                lease.fence,
            )
            at = (worker.worker, lease.slot)
            assert lease.fence >= fences.get(at, 0), f"the fence of {at} has fallen"
            fences[at] = lease.fence
    for call in snapshot.calls:
        assert call.expires_ms > snapshot.now_ms
        assert (call.position is not None) == (call.state is CallState.QUEUED)
        assert set(call.bundle) == (set() if call.state is CallState.QUEUED else set(call.roles))
    assert [call.position for call in snapshot.queue] == list(range(1, len(snapshot.queue) + 1))
