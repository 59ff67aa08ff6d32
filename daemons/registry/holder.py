"""A call's lease in the hands of who holds it: kept alive, given up before it can be another's."""

import asyncio
import contextlib
import logging
import random

from daemons.clock import Clock
from daemons.errors import LeaseLost, Unavailable, in_words
from daemons.registry.client import Registry
from daemons.registry.results import AdoptStatus, Bundle, Lease, Member, RenewStatus, SwapStatus

log = logging.getLogger(__name__)

# Redis may be away for 8 s from the moment before a renewal is due: 1.1 s + 8 s + 0.5 s are less than GIVE_UP_S
RENEW_S = 1.0
RENEW_AGAIN_S = 0.5
GIVE_UP_S = 10.0  # after the last good renewal was sent; the lease itself lives LEASE_TTL_MS, 15 s


class Holder:
    """Holds one call. `bundle` is what it holds now, `moving` the roles whose member drains or is gone: `swap` these.

    A registry that says LOST may have lost its data instead: the holder offers once to give back what it holds, and
    the registry refuses when it knows better (the call was released, ran out, or the slots are another's).
    """

    def __init__(self, registry: Registry, lease: Lease, clock: Clock) -> None:
        self.call = lease.call
        self.fence = lease.fence
        self.moving: frozenset[str] = frozenset()
        self._bundle = dict(lease.bundle)
        self._registry = registry
        self._clock = clock
        self._asking = asyncio.Lock()  # an adoption must not give back a member that is just being swapped
        self._look = asyncio.Event()

    @property
    def bundle(self) -> Bundle:
        return self._bundle

    async def keep(self) -> None:
        """Renew at once, then each second, after a failure each half. Never returns: raises LeaseLost at the end.

        By then at most GIVE_UP_S have passed since the last good renewal was sent, whatever Redis does.
        """
        give_up_ns = self._clock.now_ns() + round(GIVE_UP_S * 1e9)
        this = asyncio.current_task()
        # redis-py waits by `wait_for`, which before Python 3.12 can lose a cancel; the count of them remembers it
        while this is not None and not this.cancelling():
            sent_ns = self._clock.now_ns()
            left_s = (give_up_ns - sent_ns) / 1e9
            if left_s <= 0:
                raise LeaseLost(f"{self.call} was not renewed for {GIVE_UP_S:g} s")
            self._look.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._renew()
            except (Unavailable, TimeoutError) as error:
                log.warning("%s: not renewed: %s", self.call, in_words(error))
                await self._clock.sleep(min(RENEW_AGAIN_S, left_s))
                continue
            give_up_ns = sent_ns + round(GIVE_UP_S * 1e9)
            await self._sleep(RENEW_S * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load, hides nothing

    def look_again(self) -> None:
        """Renew now: something says that the lease is gone."""
        self._look.set()

    async def swap(self, role: str) -> Member | None:
        """The healthy worker that serves the role from now on, None when there is none (try again).

        Raises Unavailable. A lease that is lost altogether is for `keep` to find out.
        """
        async with self._asking:
            answer = await self._registry.swap(self.call, self.fence, role)
        if answer.status is SwapStatus.LOST:
            self.look_again()
        if answer.member is not None:
            log.info("%s: %s is now %s", self.call, role, answer.member.worker)
            self._bundle[role] = answer.member
            self.moving -= {role}
        return answer.member

    async def release(self) -> None:
        """Give everything back. Raises Unavailable: then the lease runs out by itself."""
        await self._registry.release(self.call, self.fence)

    async def _renew(self) -> None:
        async with self._asking:
            answer = await self._registry.renew(self.call, self.fence)
            if answer.status is RenewStatus.LOST:
                if await self._registry.adopt(self.call, self.fence, self._bundle) is AdoptStatus.TAKEN:
                    raise LeaseLost(f"the registry no longer gives {self.call} to this holder")
                log.warning("%s: given back to a registry that had lost it", self.call)
            self.moving = frozenset(answer.moving)

    async def _sleep(self, seconds: float) -> None:
        waits = [asyncio.ensure_future(self._clock.sleep(seconds)), asyncio.ensure_future(self._look.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await wait
