"""The registry's methods: each one atomic, idempotent script. The only module that speaks to Redis."""

import hashlib
import inspect
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from daemons import redis_url
from daemons.errors import BadRequest, Unavailable, in_words
from daemons.registry import keys, sentinel
from daemons.registry.results import (
    Acquired,
    AcquireStatus,
    AdoptStatus,
    Bundle,
    CallRecord,
    CallState,
    DrainStatus,
    Event,
    Heartbeat,
    HeartbeatStatus,
    Lease,
    Member,
    Probed,
    ProbeStatus,
    Reaped,
    RegisterStatus,
    ReleaseStatus,
    Renewed,
    RenewStatus,
    SlotLease,
    Snapshot,
    Standing,
    Swapped,
    SwapStatus,
    WorkerRecord,
    WorkerState,
)

TIMEOUT_S = 1.0
PING_EVERY_S = 5.0
LEASE_TTL_MS = 15_000
MAX_NOTE_FIELDS, MAX_NOTE_CHARS = 16, 500
EVENT_FIELDS = frozenset({"kind", "seq", "at"})

Now = Callable[[], int | Awaitable[int]]


def connect(url: str) -> "Registry":
    """The registry at `redis://…`, or at the master that `redis+sentinel://…` names.

    1 s time-outs and no retries, since the caller's own loop is the retry.
    """
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_S,
        "socket_connect_timeout": TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    sentinels = redis_url.parse(url)
    return Registry(Redis.from_url(url, **options) if sentinels is None else sentinel.master(sentinels, **options))


class Registry:
    """Workers, leases and the queue. Times are the registry's virtual clock, in milliseconds.

    `now_ms` stands in for Redis TIME in tests; a script still lets it move the virtual clock by 2 s at most.
    Every method raises Unavailable when Redis does not answer: the script may or may not have run, so ask again.
    """

    def __init__(self, redis: Redis, now_ms: Now | None = None) -> None:
        self._redis = redis
        self._now_ms = now_ms
        self.seq = 0  # place of the last script of this client among all scripts of the registry

    async def close(self) -> None:
        await self._redis.aclose()

    async def register(
        self,
        worker: str,
        boot: str,
        role: str,
        addr: str,
        slots: int,
        max_fence: int = 0,
        meta: Mapping[str, Any] | None = None,
    ) -> RegisterStatus:
        """CREATED (as STARTING), REFRESHED or STALE_BOOT.

        A new boot ends its predecessor for good: its leases are revoked. `max_fence` is the highest fence that this
        worker has seen. Call it at start and on UNKNOWN, never on a timer.
        """
        if slots < 1:
            raise BadRequest(f"a worker has at least one slot, not {slots}")
        answer = await self._run("register", worker, boot, role, addr, slots, max_fence, json.dumps(dict(meta or {})))
        return RegisterStatus(answer["status"])

    async def heartbeat(self, worker: str, boot: str, ready: bool) -> Heartbeat:
        answer = await self._run("heartbeat", worker, boot, int(ready))
        return Heartbeat(
            HeartbeatStatus(answer["status"]),
            WorkerState(answer["state"]) if "state" in answer else None,
            tuple(
                Lease(
                    lease["slot"],
                    lease["call"],
                    lease["fence"],
                    _bundle(lease["bundle"]),
                    lease["expires_ms"],
                )
                for lease in _items(answer, "leases")
            ),
        )

    async def probe(self, worker: str, boot: str, ok: bool) -> Probed:
        answer = await self._run("probe", worker, boot, int(ok))
        return Probed(ProbeStatus(answer["status"]), WorkerState(answer["state"]) if "state" in answer else None)

    async def acquire(
        self, call: str, roles: Sequence[str], ttl_ms: int = LEASE_TTL_MS, queue_max: int = 0
    ) -> Acquired:
        """One slot of each role, or a place in the queue. Ask again within 6 s to keep that place, and to claim."""
        if not roles or len(set(roles)) != len(roles):
            raise BadRequest(f"a call asks for one worker of each of its roles, not for {list(roles)}")
        answer = await self._run("acquire", call, json.dumps(list(roles)), ttl_ms, queue_max)
        return Acquired(
            AcquireStatus(answer["status"]),
            answer.get("fence"),
            _bundle(answer.get("bundle")),
            answer.get("position"),
            answer.get("role"),
        )

    async def renew(self, call: str, fence: int, ttl_ms: int = LEASE_TTL_MS) -> Renewed:
        """Keep the call for another `ttl_ms`. LOST: it is gone, or another's."""
        answer = await self._run("renew", call, fence, ttl_ms)
        return Renewed(RenewStatus(answer["status"]), _items(answer, "moving"))

    async def swap(self, call: str, fence: int, role: str, ttl_ms: int = LEASE_TTL_MS) -> Swapped:
        """Another worker for one role, under a new fence; NONE when none is free, LOST when the call is.

        Asked again before the next renew, the same answer: renew in between when the new member is bad too.
        """
        answer = await self._run("swap", call, fence, role, ttl_ms)
        return Swapped(SwapStatus(answer["status"]), Member(**answer["member"]) if "member" in answer else None)

    async def adopt(self, call: str, fence: int, bundle: Bundle, ttl_ms: int = LEASE_TTL_MS) -> AdoptStatus:
        """OK or TAKEN. Tells a registry that lost its data what this holder holds.

        A grant that the registry itself has ended in the last minute is TAKEN too.
        """
        if not bundle:
            raise BadRequest("there is nothing to adopt")
        members = {role: asdict(member) for role, member in bundle.items()}
        return AdoptStatus((await self._run("adopt", call, fence, json.dumps(members), ttl_ms))["status"])

    async def release(self, call: str, fence: int) -> ReleaseStatus:
        """OK, whether or not the call was still held. A wrong fence frees nothing."""
        return ReleaseStatus((await self._run("release", call, fence))["status"])

    async def cancel(self, call: str) -> ReleaseStatus:
        """OK. Gives back a ticket or a reservation; a call that is held stays."""
        return ReleaseStatus((await self._run("cancel", call))["status"])

    async def drain(self, worker: str, boot: str) -> DrainStatus:
        """OK or UNKNOWN. From now on no new leases; reservations go elsewhere."""
        return DrainStatus((await self._run("drain", worker, boot))["status"])

    async def deregister(self, worker: str, boot: str) -> DrainStatus:
        """OK or UNKNOWN. The worker is GONE at once, and its leases are revoked."""
        return DrainStatus((await self._run("deregister", worker, boot))["status"])

    async def note(self, kind: str, fields: Mapping[str, str]) -> None:
        """A line in the audit log by someone who watches from outside: `fields` as `Event.data` shows them."""
        if len(fields) > MAX_NOTE_FIELDS:
            raise BadRequest(f"a note has at most {MAX_NOTE_FIELDS} fields, not {len(fields)}")
        if taken := EVENT_FIELDS.intersection(fields):
            raise BadRequest(f"each entry has its own {', '.join(sorted(taken))}; a note cannot say otherwise")
        await self._run("note", kind, json.dumps({name: text[:MAX_NOTE_CHARS] for name, text in fields.items()}))

    async def reap(self) -> Reaped:
        """End what is overdue. Every other method does so too; this one keeps an idle registry moving."""
        answer = await self._run("reap")
        return Reaped(_items(answer, "ended"), _items(answer, "unhealthy"), _items(answer, "gone"))

    async def snapshot(self) -> Snapshot:
        """All workers (those gone for less than a day too) and all calls."""
        answer = await self._run("snapshot")
        return Snapshot(
            answer["now_ms"],
            tuple(_worker_record(record) for record in _items(answer, "workers")),
            tuple(_call_record(record) for record in _items(answer, "calls")),
            answer["last_event"],
        )

    async def lookup(self, call: str) -> Standing:
        """How a call stands, without asking for anything."""
        answer = await self._run("lookup", call)
        return Standing(
            CallState(answer["state"]),
            answer.get("fence") or None,
            _bundle(answer.get("bundle")),
            answer.get("position"),
            answer.get("expires_ms"),
        )

    async def events(self, since: str = "0-0", count: int = 100) -> tuple[Event, ...]:
        """The audit log's next `count` entries after the one with id `since`; about 10,000 are kept."""
        answer = await self._run("events", since, count)
        return tuple(_event(entry["id"], entry["fields"]) for entry in _items(answer, "events"))

    @asynccontextmanager
    async def wakeups(self, worker: str) -> AsyncIterator[AsyncIterator[None]]:
        """`async with registry.wakeups(worker) as wakeups: async for _ in wakeups`: this worker's leases have changed.

        The first comes at once. Any other may be lost, so never rely on one. Raises Unavailable when the connection
        breaks: enter it anew then.
        """
        async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            with _unavailable():
                await pubsub.subscribe(keys.WAKE + worker)
            async with aclosing(_hints(pubsub)) as hints:
                yield hints

    async def _run(self, name: str, *args: str | int) -> dict[str, Any]:
        now: int | Awaitable[int] | None = None if self._now_ms is None else self._now_ms()
        if inspect.isawaitable(now):
            now = await now
        source, sha1 = _script(name)
        argv = ("" if now is None else int(now), *args)
        with _unavailable():
            try:
                raw = await self._redis.evalsha(sha1, len(keys.SCRIPT_KEYS), *keys.SCRIPT_KEYS, *argv)
            except NoScriptError:
                raw = await self._redis.eval(source, len(keys.SCRIPT_KEYS), *keys.SCRIPT_KEYS, *argv)
        answer: dict[str, Any] = json.loads(raw)
        self.seq = answer["seq"]
        return answer


async def _hints(pubsub: PubSub) -> AsyncGenerator[None]:
    yield  # for what changed before the subscription
    pinged = False
    while True:
        with _unavailable():
            message = await pubsub.get_message(timeout=PING_EVERY_S)
            if message is None and pinged:
                raise Unavailable("the registry does not answer (Redis has gone silent)")
            pinged = message is None
            if pinged:
                await pubsub.ping()
        if message and message["type"] == "message":
            yield


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise Unavailable(f"the registry does not answer (Redis: {in_words(error)})") from error


@cache
def _script(name: str) -> tuple[str, str]:
    """(source, SHA-1) of a script, with what all scripts share in front of it."""
    folder = resources.files("daemons.registry") / "lua"
    source = "\n".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in ("_records", "_leases", name))
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


def _items(answer: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    return tuple(answer.get(name) or ())  # Lua writes an empty list as {}


def _bundle(raw: Mapping[str, Any] | None) -> Bundle:
    return {role: Member(**member) for role, member in sorted((raw or {}).items())}


def _worker_record(raw: Mapping[str, Any]) -> WorkerRecord:
    return WorkerRecord(
        raw["worker"],
        raw["boot"],
        raw["role"],
        raw["addr"],
        raw["slots"],
        WorkerState(raw["state"]),
        raw["hb_age_ms"],
        json.loads(raw["meta"]),
        tuple(SlotLease(**lease) for lease in _items(raw, "leases")),
    )


def _call_record(raw: Mapping[str, Any]) -> CallRecord:
    return CallRecord(
        raw["call"],
        CallState(raw["state"]),
        _items(raw, "roles"),
        raw["fence"],
        _bundle(raw["bundle"]),
        raw["expires_ms"],
        raw["age_ms"],
        raw.get("position"),
    )


def _event(entry_id: str, fields: Mapping[str, str]) -> Event:
    data = {name: value for name, value in fields.items() if name not in EVENT_FIELDS}
    return Event(entry_id, fields["kind"], int(fields["seq"]), int(fields["at"]), data)
