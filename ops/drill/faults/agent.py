"""A holder of calls on the real runtime: it keeps each lease with the agent's own `Holder`, and keeps its members busy.

Sometimes it sends what nobody should heed: a request of a call that is over, as a slow network would deliver it, and
one with a fence that was never granted.
"""

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
from aiohttp import web

from daemons.admission import Claim
from daemons.clock import SystemClock
from daemons.errors import LeaseLost, Unavailable
from daemons.registry import Holder, Lease, Member
from daemons.runtime import Runtime, main
from ops.drill.faults.journal import Journal, Kind

STEPS, STEP_MS = 6, 80
PAUSE_S = 0.1
ASK_AGAIN_S = 0.2
SWAP_EVERY_S = 0.5
SWAP_FOR_S = 8.0
CALL_S = (4.0, 25.0)
STALE_AFTER_S = (0.0, 6.0)
STALE_SHARE = 0.5
FORGED_SHARE = 0.2
FORGED_FENCES = 1_000_000_000
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=1.0, sock_read=1.5)
REFUSED = 400  # HTTP statuses from here on

LeaseId = tuple[str, int]  # call, fence

_BROKEN = (aiohttp.ClientError, ConnectionError, TimeoutError)


class Refused(Exception):
    """The worker's answer was a status of this number."""


class NoWorker(Exception):
    """A member was lost and no other was to be had for SWAP_FOR_S."""


class Agent:
    role = "agent"
    direct_slots = 0

    def __init__(self, runtime: Runtime, journal: Path) -> None:
        self.slots = runtime.settings.slots
        self._runtime = runtime
        self._journal = Journal(journal)
        self._running: dict[LeaseId, _Call] = {}
        self._over: set[LeaseId] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        runtime.on_leases = self._leases_changed

    async def load(self) -> str:
        self._http = aiohttp.ClientSession(timeout=TIMEOUT)
        return "none"

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return ()

    async def drain(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._http.close()

    def _leases_changed(self, leases: tuple[Lease, ...]) -> None:
        listed = {(lease.call, lease.fence): lease for lease in leases}
        for lease_id, call in self._running.items():
            if lease_id not in listed:
                call.holder.look_again()
        for lease_id, lease in listed.items():
            if lease_id not in self._running and lease_id not in self._over:
                for older in self._running.values():
                    older.end_if_on(lease.slot)
                self._running[lease_id] = call = _Call(self._runtime, self._journal, self._http, lease)
                self._spawn(self._hold(lease_id, call))

    async def _hold(self, lease_id: LeaseId, call: "_Call") -> None:
        try:
            await call.live()
        finally:
            del self._running[lease_id]
            self._over.add(lease_id)
        if random.random() < STALE_SHARE:  # noqa: S311
            await asyncio.sleep(random.uniform(*STALE_AFTER_S))  # noqa: S311
            await call.pretend(Kind.STALE)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Call:
    """One call, from its lease to its end."""

    def __init__(self, runtime: Runtime, journal: Journal, http: aiohttp.ClientSession, lease: Lease) -> None:
        self.holder = Holder(runtime.registry, lease, SystemClock())
        self._journal = journal
        self._http = http
        self._place = ("agent", runtime.worker, runtime.boot, lease.slot, lease.fence, lease.call, 0)
        self._slot = lease.slot
        self._superseded = asyncio.Event()
        self._is_over = False

    def end_if_on(self, slot: int) -> None:
        """The registry has given this slot to another call."""
        if slot == self._slot:
            self._is_over = True
            self._superseded.set()

    async def live(self) -> None:
        for role in self.holder.bundle:
            self._note_member(role)
        self._journal.write(Kind.BEGIN, *self._place)
        roles = [role for role in self.holder.bundle if role != "agent"]
        tasks = [
            asyncio.create_task(self.holder.keep()),
            asyncio.create_task(asyncio.sleep(random.uniform(*CALL_S))),  # noqa: S311
            asyncio.create_task(self._superseded.wait()),
            *(asyncio.create_task(self._keep_busy(role)) for role in roles),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._is_over = True
            for task in tasks:
                task.cancel()
        why = "its slot is another's" if self._superseded.is_set() else "its caller left"
        for task in done:
            if isinstance(error := task.exception(), LeaseLost):
                why = f"lost: {error}"
            elif isinstance(error, NoWorker):
                why = f"no worker: {error}"
            elif error is not None:
                raise error
        self._journal.write(Kind.END, *self._place, why)
        with contextlib.suppress(Unavailable):  # then it runs out
            await self.holder.release()

    async def pretend(self, kind: Kind) -> None:
        """Ask every member for work that this call has no right to, and write down what came of it."""
        forged = FORGED_FENCES if kind is Kind.FORGED else 0
        for role, member in self.holder.bundle.items():
            if role == "agent":
                continue
            fence = member.fence + forged
            try:
                await self._ask(member, fence)
                answer = "done"
            except (Refused, *_BROKEN) as error:
                answer = f"{type(error).__name__} {error}"
            self._journal.write(kind, role, member.worker, member.boot, member.slot, fence, self.holder.call, 0, answer)

    async def _keep_busy(self, role: str) -> None:
        if random.random() < FORGED_SHARE:  # noqa: S311
            await self.pretend(Kind.FORGED)
        failures = 0
        while not self._is_over:
            if role in self.holder.moving:
                await self._replace(role)
            member = self.holder.bundle[role]
            self._journal.write(Kind.STEP, *self._place)
            try:
                await self._ask(member, member.fence)
                failures = 0
            except (Refused, *_BROKEN):
                self.holder.look_again()
                failures += 1
                if failures > 1:
                    await self._replace(role)
                await asyncio.sleep(ASK_AGAIN_S)
            await asyncio.sleep(PAUSE_S)

    async def _replace(self, role: str) -> None:
        """Another worker for this role, or the one that we have, if it serves us again.

        SWAP_FOR_S counts while the registry answers: as long as it is away, nobody can be had and nobody is to blame.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SWAP_FOR_S
        while not self._is_over:
            self._journal.write(Kind.STEP, *self._place)
            try:
                if await self.holder.swap(role) is not None:
                    self._note_member(role)
                    return
            except Unavailable:
                deadline = loop.time() + SWAP_FOR_S
            if loop.time() > deadline:
                raise NoWorker(f"no {role} for {SWAP_FOR_S:g} s")
            await asyncio.sleep(SWAP_EVERY_S)
            with contextlib.suppress(Refused, *_BROKEN):
                member = self.holder.bundle[role]
                await self._ask(member, member.fence)
                return

    def _note_member(self, role: str) -> None:
        member = self.holder.bundle[role]
        self._journal.write(
            Kind.GIVEN, role, member.worker, member.boot, member.slot, member.fence, self.holder.call, 0
        )

    async def _ask(self, member: Member, fence: int) -> None:
        claim = Claim(self.holder.call, member.slot, fence, member.boot)
        query = {"steps": str(STEPS), "step_ms": str(STEP_MS)}
        async with self._http.get(f"{member.addr}/work", params=query, headers=claim.headers()) as response:
            if response.status >= REFUSED:
                raise Refused(response.status)
            async for _ in response.content.iter_any():
                if self._is_over:
                    return


def run(journal: str) -> NoReturn:
    main(lambda runtime: Agent(runtime, Path(journal)))
