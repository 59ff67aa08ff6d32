"""The registry and its model side by side: each operation goes to both, and both must answer the same."""

from collections.abc import Coroutine, Generator, Mapping, Sequence
from dataclasses import replace
from types import coroutine
from typing import Any, NamedTuple, TypeVar, cast

from redis.asyncio import Redis
from redis.connection import Connection

from daemons.registry import Event, Registry, Snapshot, keys
from ops.drill.registry.audit import Entry
from ops.drill.registry.clients import Op
from ops.drill.registry.invariants import Invariants
from ops.drill.registry.model import RegistryModel
from ops.drill.registry.state import DAY_MS

START_MS = 1_700_000_000_000
READ_AT_ONCE = 500  # entries of the audit log

T = TypeVar("T")


class Diverged(Exception):
    """Registry and model do not agree."""

    def __init__(self, op: Op, answer: object, expected: object) -> None:
        super().__init__(f"{op}\n  the registry: {answer}\n  the model:    {expected}")


class BlockingRedis:
    """As much of a Redis client as `Registry` asks for, without an event loop, for a million round trips.

    A coroutine that asks it stops once, when its request is on the way, and is then resumed to wait for the reply.
    """

    def __init__(self, port: int) -> None:
        self._connection = cast(Any, Connection)(port=port, socket_timeout=10)  # redis-py has no types for it
        self._connection.connect()

    def close(self) -> None:
        self._connection.disconnect()

    def do(self, *command: str | int) -> Any:
        self._send(command)
        return self._connection.read_response()

    async def evalsha(self, *args: str | int) -> Any:
        return await self._ask("EVALSHA", *args)

    async def eval(self, *args: str | int) -> Any:
        return await self._ask("EVAL", *args)

    async def _ask(self, *command: str | int) -> Any:
        self._send(command)
        await _on_its_way()
        return self._connection.read_response()

    def _send(self, command: Sequence[str | int]) -> None:
        words = [str(word).encode() for word in command]
        request = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        self._connection.send_packed_command([request], check_health=False)


@coroutine
def _on_its_way() -> Generator[None, None, None]:
    yield


def ask(registry: Registry, op: Op) -> Coroutine[Any, Any, Any]:
    return cast(Coroutine[Any, Any, Any], getattr(registry, op.name)(*op.args))


class Expected(NamedTuple):
    """What the model has answered. `args` are those that it was given."""

    op: Op
    args: tuple[Any, ...]
    answer: object
    seq: int


class Expectation:
    """The model, asked in the registry's words: it knows entries of the audit log by their ids."""

    def __init__(self, model: RegistryModel) -> None:
        self.model = model
        self._read = {"0-0": 0}  # id of an entry → how many entries there are up to it

    def of(self, op: Op) -> Expected:
        args = op.args
        if op.name == "events":
            args = (self._read[args[0]], args[1])
        return Expected(op, args, getattr(self.model, op.name)(*args), self.model.state.seq)

    def check(self, expected: Expected, seq: int, answer: object) -> None:
        """Raises Diverged."""
        comparable = _comparable(answer)
        if comparable != expected.answer or seq != expected.seq:
            raise Diverged(expected.op, f"#{seq} {comparable}", f"#{expected.seq} {expected.answer}")
        if isinstance(answer, Snapshot):
            self._read[answer.last_event] = self.model.state.log.length
        elif expected.op.name == "events" and answer:
            events = cast(tuple[Event, ...], answer)
            self._read[events[-1].id] = expected.args[0] + len(events)

    def lose_data(self) -> None:
        self.model.state.lose_data()
        self._read = {"0-0": 0}


class SideBySide:
    """`now_ms` is what both take for the time; it moves only from outside."""

    def __init__(self, redis: BlockingRedis) -> None:
        self.now_ms = START_MS
        self.registry = Registry(cast(Redis, redis), now_ms=lambda: self.now_ms)
        self.invariants = Invariants()
        self._expectation = Expectation(RegistryModel(lambda: self.now_ms))
        self._last_event = "0-0"
        self._redis = redis
        self.lose_data({})

    def do(self, op: Op) -> Any:
        """What both answer. Raises Diverged."""
        asking = ask(self.registry, op)
        asking.send(None)
        expected = self._expectation.of(op)  # while Redis is at it
        answer = _result(asking)
        self._expectation.check(expected, self.registry.seq, answer)
        return answer

    def look(self) -> Snapshot:
        """Raises Diverged when the two do not look alike, Broken when an invariant does not hold."""
        news = READ_AT_ONCE
        while news == READ_AT_ONCE:
            events = self.do(Op("events", (self._last_event, READ_AT_ONCE)))
            news = len(events)
            self.invariants.hear(events)
            self._last_event = events[-1].id if events else self._last_event
        snapshot: Snapshot = self.do(Op("snapshot"))
        self.invariants.see(snapshot)
        return snapshot

    # What happens to the server ------------------------------------------------------------------

    def lose_data(self, told: Mapping[tuple[str, str], int]) -> None:
        """`told`: the highest fence that each (worker, boot) has been told."""
        self._redis.do("FLUSHALL")
        self._expectation.lose_data()
        self.invariants.lose_data(told)
        self._last_event = "0-0"

    def forget_scripts(self) -> None:
        self._redis.do("SCRIPT", "FLUSH")

    def change_server(self) -> None:
        """As Redis looks to the next grant when it runs under another id than before."""
        self._redis.do("HSET", keys.SYS, "run", "another server's")
        self._expectation.model.state.change_server()

    def pass_a_day(self) -> None:
        """At once: at 2 s a script it would take long."""
        self.do(Op("reap"))  # which starts the clock
        self._redis.do("HINCRBY", keys.SYS, "v", DAY_MS)
        self._expectation.model.state.now += DAY_MS
        self.invariants.pass_a_day()


def _result(asking: Coroutine[Any, Any, T]) -> T:
    try:
        while True:
            asking.send(None)
    except StopIteration as end:
        return cast(T, end.value)


def _comparable(answer: object) -> object:
    """Without what is Redis's own affair: the order of listings, and the ids of log entries."""
    if isinstance(answer, Snapshot):
        workers = tuple(sorted(answer.workers, key=lambda record: record.worker))
        calls = tuple(sorted(answer.calls, key=lambda record: record.call))
        return replace(answer, workers=workers, calls=calls, last_event="")
    if isinstance(answer, tuple) and answer and isinstance(answer[0], Event):
        return tuple(Entry.of(event) for event in answer)
    return answer
