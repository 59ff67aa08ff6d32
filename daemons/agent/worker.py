"""The agent: one process that holds up to `slots` calls, each in a task group of its own."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable

import aiohttp
import numpy as np
from aiohttp import web
from prometheus_client import Gauge

from daemons import trace
from daemons.agent import persona
from daemons.agent.call import Call
from daemons.agent.metrics import Metrics
from daemons.agent.smart_turn import TurnListener
from daemons.audio import Samples
from daemons.clock import SystemClock
from daemons.errors import ConfigurationError
from daemons.media import Rooms
from daemons.models import model_dir
from daemons.registry import Lease
from daemons.runtime import Runtime
from daemons.vad import WINDOW_SAMPLES, SileroVad

log = logging.getLogger(__name__)

REMEMBERED_CALLS = 256
KEPT_TRACES = 1000
CLOSE_TIMEOUT_S = 4.0

LeaseId = tuple[str, int]  # call, fence


class Agent:
    role = "agent"
    direct_slots = 0

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        runtime.on_leases = self._leases_changed
        self._settings = runtime.settings
        self.slots = runtime.settings.slots
        self._rooms = Rooms(runtime.settings)
        self._session: aiohttp.ClientSession | None = None
        self._idle_vads: list[SileroVad] = []
        self._listener: TurnListener | None = None
        self._phrases: dict[str, Samples] = {}  # that calls have rendered, by their text
        self._running: dict[LeaseId, tuple[Call, asyncio.Task[None]]] = {}
        self._over: OrderedDict[LeaseId, None] = OrderedDict()  # a heartbeat may still list what has just ended
        self._metrics = Metrics(runtime.metrics)
        Gauge("callbox_calls", "Calls held now", registry=runtime.metrics).set_function(lambda: len(self._running))

    def routes(self) -> Iterable[web.AbstractRouteDef]:
        return ()

    async def load(self) -> str:
        """Reads the persona once, so that a wrong file is found now, and warms up a VAD for each slot."""
        persona.load(self._settings.persona)
        self._listener = await TurnListener.load(self._settings)
        for _ in range(self.slots):
            vad = await asyncio.to_thread(self._new_vad)
            vad(np.zeros(WINDOW_SAMPLES, np.float32))
            self._idle_vads.append(vad)
        return self._settings.vad_model

    def _new_vad(self) -> SileroVad:
        return SileroVad(model_dir(self._settings, self._settings.vad_model) / "silero_vad.onnx")

    def _leases_changed(self, leases: tuple[Lease, ...]) -> None:
        listed = {(lease.call, lease.fence): lease for lease in leases}
        for lease_id, (call, _) in self._running.items():
            if lease_id not in listed:
                call.lease_is_missing()
        for lease_id, lease in listed.items():
            if lease_id not in self._running and lease_id not in self._over:
                self._start(lease_id, lease)

    async def drain(self) -> None:
        """Calls end in their own time; those that are left when patience ends are told why."""
        try:
            while self._running:
                await asyncio.wait([task for _, task in self._running.values()])
        finally:
            for call, _ in self._running.values():
                call.end("agent_stopping")

    async def close(self) -> None:
        if tasks := [task for _, task in self._running.values()]:
            _, late = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
            for task in late:
                task.cancel()
        await self._rooms.close()
        if self._listener is not None:
            await asyncio.to_thread(self._listener.close)
        if self._session is not None:
            await self._session.close()

    def _start(self, lease_id: LeaseId, lease: Lease) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        # None is idle while a call that was on this slot is still ending
        vad = self._idle_vads.pop() if self._idle_vads else self._new_vad()
        vad.reset()
        try:
            call = Call(
                settings=self._settings,
                registry=self._runtime.registry,
                rooms=self._rooms,
                session=self._session,
                vad=vad,
                listener=self._listener,
                clock=SystemClock(),
                lease=lease,
                phrases=self._phrases,
                metrics=self._metrics,
            )
        except ConfigurationError as error:  # the persona was changed for the worse
            log.error("%s cannot be taken: %s", lease.call, error)
            self._idle_vads.append(vad)
            self._forget(lease_id)
            return
        log.info("%s begins on slot %d", lease.call, lease.slot)
        task = asyncio.create_task(self._hold(lease_id, call, vad), name=lease.call)
        self._running[lease_id] = (call, task)

    async def _hold(self, lease_id: LeaseId, call: Call, vad: SileroVad) -> None:
        try:
            self._metrics.calls_ended.labels(await call.run()).inc()
            await asyncio.to_thread(trace.prune, self._settings.var_dir / "traces", KEPT_TRACES)
        except OSError as error:
            log.warning("old traces stay: %s", error)
        finally:
            del self._running[lease_id]
            if len(self._idle_vads) < self.slots:
                self._idle_vads.append(vad)
            self._forget(lease_id)

    def _forget(self, lease_id: LeaseId) -> None:
        self._over[lease_id] = None
        while len(self._over) > REMEMBERED_CALLS:
            self._over.popitem(last=False)
