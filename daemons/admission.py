"""Who may use a worker: calls by their lease's slot and fence, everyone else by the worker's direct slots."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge

from daemons import wire
from daemons.errors import AtCapacity, BadRequest, CallboxError, Fenced, Unavailable
from daemons.health import Block

MAX_REQUESTS_PER_SLOT = 8
NUMBER = re.compile(r"[0-9]{1,18}")  # a slot or a fence in a header

# (slot, fence) → the call that the registry says holds this slot under this fence, or None
Confirm = Callable[[int, int], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Claim:
    """The lease that a request says it is made under."""

    call: str
    slot: int
    fence: int
    boot: str

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> "Claim | None":
        """None for a request without a call. Raises BadRequest when only some of the headers are there."""
        values = [headers.get(name) for name in (wire.CALL_ID, wire.SLOT, wire.FENCE, wire.BOOT)]
        if all(value is None for value in values):
            return None
        call, slot, fence, boot = values
        if not (call and slot and fence and boot and NUMBER.fullmatch(slot) and NUMBER.fullmatch(fence)):
            raise BadRequest(
                f"a request of a call carries {wire.CALL_ID}, {wire.SLOT}, {wire.FENCE} (both numbers) and {wire.BOOT}"
            )
        return cls(call, int(slot), int(fence), boot)

    def headers(self) -> dict[str, str]:
        return {wire.CALL_ID: self.call, wire.SLOT: str(self.slot), wire.FENCE: str(self.fence), wire.BOOT: self.boot}


@dataclass(eq=False, slots=True)
class Work:
    """One admitted request. `slot` counts the leased slots first, then the direct ones."""

    slot: int
    call: str | None
    _block: Block
    _task: "asyncio.Task[object] | None" = field(default_factory=asyncio.current_task)

    @contextmanager
    def active(self) -> Iterator[None]:
        """While inside, this worker could advance the work now; a silent peer is no work in flight."""
        with self._block.working():
            yield

    def progress(self) -> None:
        self._block.progress()

    def abort(self, reason: str) -> None:
        if self._task is not None:
            self._task.cancel(reason)


@dataclass(slots=True)
class _Slot:
    fence: int = 0
    call: str | None = None
    work: set[Work] = field(default_factory=set)


class Admission:
    """Counts slots and checks fences; every request passes `admit` before it costs anything."""

    def __init__(
        self,
        *,
        slots: int,
        direct_slots: int,
        boot: str,
        block: Block,
        confirm: Confirm,
        draining: asyncio.Event,
        metrics: CollectorRegistry,
    ) -> None:
        self._boot = boot
        self._block = block
        self._confirm = confirm
        self._draining = draining
        self._slots = [_Slot() for _ in range(slots)]
        self._direct: list[Work | None] = [None] * direct_slots
        self._admitted = Counter("callbox_requests_total", "Requests admitted", ["kind"], registry=metrics)
        self._refused = Counter("callbox_refusals_total", "Requests refused", ["reason"], registry=metrics)
        held = Gauge("callbox_requests_open", "Requests that hold a place", ["kind"], registry=metrics)
        held.labels("call").set_function(lambda: sum(len(slot.work) for slot in self._slots))
        held.labels("direct").set_function(lambda: sum(work is not None for work in self._direct))
        for kind in ("call", "direct"):
            self._admitted.labels(kind)
        for error in (AtCapacity, BadRequest, Fenced, Unavailable):  # a series whose first count is 1 has no increase
            self._refused.labels(error.__name__)

    @property
    def max_fence(self) -> int:
        """The highest fence this worker has seen; registration brings it, so that fences survive a lost Redis."""
        return max((slot.fence for slot in self._slots), default=0)

    @asynccontextmanager
    async def admit(self, headers: Mapping[str, str]) -> AsyncIterator[Work]:
        """Hold a place for the request that carries `headers`, in the task that serves it.

        Raises AtCapacity, Fenced, BadRequest or Unavailable. A newer lease on the same slot cancels the task.
        """
        try:
            claim = Claim.from_headers(headers)
            if claim is not None:
                await self._check(claim)
                work, leave = self._enter_slot(claim)
            else:
                work, leave = self._enter_direct()
        except CallboxError as error:
            self._refused.labels(type(error).__name__).inc()
            raise
        self._admitted.labels("direct" if claim is None else "call").inc()
        try:
            yield work
        finally:
            leave()

    def abort_all(self, reason: str) -> None:
        for work in [*(work for slot in self._slots for work in slot.work), *self._direct]:
            if work is not None:
                work.abort(reason)

    async def _check(self, claim: Claim) -> None:
        if claim.boot != self._boot:
            raise Fenced(f"the lease is on boot {claim.boot} of this worker; this is boot {self._boot}")
        if claim.slot >= len(self._slots):
            raise BadRequest(f"there is no slot {claim.slot}; this worker has {len(self._slots)}")
        slot = self._slots[claim.slot]
        if claim.fence > slot.fence:
            holder = await self._confirm(claim.slot, claim.fence)
            if holder != claim.call:
                raise Fenced(f"the registry knows no lease of call {claim.call} on slot {claim.slot} with this fence")
            if claim.fence > slot.fence:  # another request of the same call may have been confirmed meanwhile
                for work in slot.work:
                    work.abort(f"superseded by fence {claim.fence}")
                slot.fence, slot.call = claim.fence, claim.call
        if claim.fence < slot.fence or claim.call != slot.call:
            raise Fenced(f"slot {claim.slot} is held by a newer lease (fence {slot.fence}, yours {claim.fence})")

    def _enter_slot(self, claim: Claim) -> tuple[Work, Callable[[], None]]:
        slot = self._slots[claim.slot]
        if len(slot.work) >= MAX_REQUESTS_PER_SLOT:
            raise AtCapacity(f"call {claim.call} has {len(slot.work)} requests under way already")
        work = Work(claim.slot, claim.call, self._block)
        slot.work.add(work)
        return work, lambda: slot.work.discard(work)

    def _enter_direct(self) -> tuple[Work, Callable[[], None]]:
        if self._draining.is_set():
            raise Unavailable("this worker is stopping; calls alone may finish their turn here")
        for index, taken in enumerate(self._direct):
            if taken is None:
                work = self._direct[index] = Work(len(self._slots) + index, None, self._block)

                def leave(index: int = index) -> None:
                    self._direct[index] = None

                return work, leave
        raise AtCapacity(f"all {len(self._direct)} places for requests without a call are taken; try again soon")
