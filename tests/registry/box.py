"""A box of workers in a registry whose time stands still until a test moves it."""

from redis.asyncio import Redis

from daemons.registry import (
    Acquired,
    AcquireStatus,
    CallState,
    HeartbeatStatus,
    RegisterStatus,
    Registry,
    Renewed,
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
