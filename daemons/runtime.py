"""The life of every daemon: bind → health → register → load → serve → drain → exit code."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import version
from typing import NoReturn, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest

from daemons import settings as settings_module
from daemons import wire
from daemons.admission import Admission
from daemons.doors import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_REQUEST_LINE_BYTES,
    error_response,
    errors_in_words,
    http_log,
)
from daemons.errors import (
    EXIT_DO_NOT_RESTART,
    EXIT_FAILED,
    EXIT_NOTICED_S,
    EXIT_OK,
    ConfigurationError,
    Unavailable,
)
from daemons.health import Block
from daemons.memory import count_memory
from daemons.ports import listen
from daemons.registry import HeartbeatStatus, Lease, RegisterStatus, Registry, connect
from daemons.settings import Settings

log = logging.getLogger(__name__)

BEAT_S = 0.5
PUBLISH_S = 1.0
HEARTBEAT_S = 2.0
BACKOFF_MAX_S = 2.0  # no longer than HEARTBEAT_S: after an outage, who waits longer is missed by callers
DRAIN_POLL_S = 0.05
ADOPTION_S = 3.0  # after the registry lost its data: holders, who renew each second, come before new calls
SETTLE_S = 1.0  # what was worth waiting for has been waited for
CANCEL_AGAIN_S = 0.1
CLOSE_SERVICE_S = 5.0


class Service(Protocol):
    """What a daemon's package brings; the runtime does the rest."""

    @property
    def role(self) -> str:
        """Its port is the setting `<role>_port`, of `tts-lab` too `tts_port`."""

    @property
    def slots(self) -> int:
        """For calls; 0: there is nothing to lease, so it is not registered."""

    @property
    def direct_slots(self) -> int:
        """For requests without a call."""

    async def load(self) -> str:
        """Load and warm up with one real request; returns the model's name ("" without one)."""

    def routes(self) -> Iterable[web.AbstractRouteDef]: ...

    async def drain(self) -> None:
        """Return when the work that SIGTERM should wait for is done; bounded from outside by `drain_s`."""

    async def close(self) -> None: ...


class Runtime:
    """One running daemon. A service is made with it and may use its public members."""

    def __init__(self, settings: Settings, make_service: Callable[["Runtime"], Service]) -> None:
        self.settings = settings
        self.boot = str(uuid.uuid4())
        self.metrics = CollectorRegistry()
        ProcessCollector(registry=self.metrics)
        tasks = Gauge("callbox_tasks", "Tasks of the event loop", registry=self.metrics)
        tasks.set_function(lambda: len(asyncio.all_tasks()))
        count_memory(self.metrics)
        self.health = Block()
        self.registry: Registry = connect(settings.redis)
        self.draining = asyncio.Event()
        self.max_request_line_bytes = MAX_REQUEST_LINE_BYTES  # a service may ask for more while it is made
        self.on_leases: Callable[[tuple[Lease, ...]], None] | None = None  # at each heartbeat, soon after each change
        self._max_fence = 0
        self._loaded = False
        self._stopping = asyncio.Event()
        self._exit_code = EXIT_OK
        self._facts: dict[str, object] = {}
        self._wake = asyncio.Event()
        self._leases: tuple[Lease, ...] = ()
        self._orphans: set[tuple[str, int]] = set()  # (call, slot) that a registry without its data does not list yet
        self._adoption_ends_s = 0.0
        self._make_service = make_service

    async def run(self) -> int:
        """Live until a signal or a fatal error; returns the exit code."""
        self._service = service = self._make_service(self)
        self.port = int(getattr(self.settings, f"{wire.work_of(service.role)}_port"))
        self.worker = f"{self.settings.advertise_host}:{self.port}"
        self.admission = Admission(
            slots=service.slots,
            direct_slots=service.direct_slots,
            boot=self.boot,
            block=self.health,
            confirm=self._confirm,
            draining=self.draining,
            metrics=self.metrics,
        )
        listening, health_listening = self._bind()
        self._catch_signals()
        self._describe("")
        background = [
            asyncio.create_task(self._beat(), name="beat"),
            asyncio.create_task(self._keep_health_child(health_listening), name="health"),
            asyncio.create_task(self._publish(), name="publish"),
        ]
        runner = web.AppRunner(
            self._app(),
            access_log=None,
            logger=http_log,
            max_line_size=self.max_request_line_bytes,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            shutdown_timeout=SETTLE_S,
        )
        try:
            await runner.setup()
            await web.SockSite(runner, listening).start()
            registration: asyncio.Task[None] | None = None
            if service.slots:
                registration = asyncio.create_task(self._stay_registered(), name="registration")
                background += [registration, asyncio.create_task(self._listen_for_wakeups(), name="wakeups")]
            else:
                self.health.set_registered(True)
            background.append(asyncio.create_task(self._load(), name="load"))
            for task in background:
                task.add_done_callback(self._end_if_it_failed)
            await self._stopping.wait()
            await self._drain(registration)
            return self._exit_code
        finally:
            await _cancelled(background)
            await runner.cleanup()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(service.close(), CLOSE_SERVICE_S)
            await self.registry.close()
            log.info("stopped")

    def stop(self, exit_code: int, reason: str) -> None:
        if not self._stopping.is_set():
            log.log(logging.INFO if exit_code == EXIT_OK else logging.ERROR, "stopping: %s", reason)
            self._exit_code = exit_code
            self._stopping.set()

    # Binding and signals

    def _bind(self) -> tuple[socket.socket, socket.socket]:
        setting = f"{settings_module.PREFIX}{wire.work_of(self._service.role).upper()}_PORT"
        return listen(self.port, setting), listen(self.port + 1, f"{setting} (whose health is at port+1)")

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def on_signal(signum: signal.Signals) -> None:
            if self._stopping.is_set():
                log.warning("second %s: ending at once", signum.name)
                os._exit(EXIT_FAILED)
            self.stop(EXIT_OK, signum.name)

        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, on_signal, signum)

    def _end_if_it_failed(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, ConfigurationError):
            self.stop(EXIT_DO_NOT_RESTART, str(error))
        else:
            log.error("%s failed", task.get_name(), exc_info=error)
            self.stop(EXIT_FAILED, f"{task.get_name()} failed")

    # Health

    def _describe(self, model: str) -> None:
        self._facts = {
            "boot": self.boot,
            "role": self._service.role,
            "worker": self.worker,
            "pid": os.getpid(),
            "version": version("callbox"),
            "model": model,
            "slots": self._service.slots,
            "direct_slots": self._service.direct_slots,
            "stall_s": self.settings.stall_s,
            "load_timeout_s": self.settings.load_timeout_s,
        }
        self.health.publish(self._facts, b"")

    async def _beat(self) -> None:
        while True:
            self.health.beat()
            await asyncio.sleep(BEAT_S)

    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_S)
            if self._loaded:
                gc.collect()  # of what calls have left: milliseconds, since what was loaded is frozen
            facts = {**self._facts, "leases": len(self._leases)}
            self.health.publish(facts, generate_latest(self.metrics))

    async def _keep_health_child(self, listening: socket.socket) -> None:
        with listening:
            while True:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "daemons.health"),
                    *(str(self.health.fd), str(listening.fileno()), str(os.getpid())),
                    pass_fds=(self.health.fd, listening.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    cwd=settings_module.ROOT,
                )
                try:
                    code = await child.wait()
                finally:
                    if child.returncode is None:
                        child.kill()
                        await child.wait()
                log.error("the health process ended with %d; starting another", code)
                await asyncio.sleep(1)

    # The registry

    async def _load(self) -> None:
        started, limit_s = time.monotonic(), self.settings.load_timeout_s
        overdue = asyncio.get_running_loop().call_later(
            limit_s, self.stop, EXIT_FAILED, f"still loading after {limit_s:g} s"
        )
        model = await self._service.load()
        overdue.cancel()
        _freeze_what_is_loaded()
        self._describe(model)
        self._loaded = True
        self.health.set_phase("ready")
        self._wake.set()
        log.info("ready on port %d after %.1f s%s", self.port, time.monotonic() - started, model and f" with {model}")

    async def _stay_registered(self) -> None:
        """Register once, then heartbeat; register again only when the registry says that it knows us not."""
        registered, failures = False, 0
        while True:
            self._wake.clear()
            try:
                if not registered:
                    await self._register()
                    registered = True
                    self.health.set_registered(True)
                beat = await self.registry.heartbeat(self.worker, self.boot, self._wants_leases())
                if failures:
                    log.info("the registry answers again")
                failures = 0
            except Unavailable as error:
                failures += 1
                if failures == 1 or failures % 30 == 0:
                    log.warning("%s; asked %d times so far", error, failures)
                await asyncio.sleep(min(BACKOFF_MAX_S, 0.25 * 2 ** min(failures, 5)))
                continue
            if beat.status is HeartbeatStatus.UNKNOWN:
                log.warning("the registry has lost this worker; registering again")
                registered = False
                self.health.set_registered(False)
                self._orphans |= {(lease.call, lease.slot) for lease in self._leases}
                self._adoption_ends_s = time.monotonic() + ADOPTION_S
                await asyncio.sleep(0.1)
                continue
            self._leases = beat.leases
            self._orphans -= {(lease.call, lease.slot) for lease in beat.leases}
            self._max_fence = max([self._max_fence, *(lease.fence for lease in beat.leases)])
            if self.on_leases is not None:
                self.on_leases(beat.leases)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._next_heartbeat_s())

    def _wants_leases(self) -> bool:
        """Not while a slot may still be adopted by the call that held it before the registry lost its data."""
        if time.monotonic() >= self._adoption_ends_s:
            self._orphans.clear()
        return self._loaded and not self.draining.is_set() and not self._orphans

    def _next_heartbeat_s(self) -> float:
        """When the wait for holders ends, capacity must not lie idle until a heartbeat happens to be due."""
        if not self._orphans:
            return HEARTBEAT_S
        return min(HEARTBEAT_S, max(0.0, self._adoption_ends_s - time.monotonic()))

    async def _register(self) -> None:
        service = self._service
        answer = await self.registry.register(
            self.worker,
            self.boot,
            service.role,
            f"http://{self.worker}",
            service.slots,
            max(self._max_fence, self.admission.max_fence),
            {"version": version("callbox"), "pid": str(os.getpid())},
        )
        if answer is RegisterStatus.STALE_BOOT:
            raise ConfigurationError(
                f"another process has registered as {self.worker} since this one started; this boot is retired"
            )
        log.info("registered as %s: %s", self.worker, answer)

    async def _listen_for_wakeups(self) -> None:
        """A wake-up only makes the next heartbeat sooner; losing one costs at most HEARTBEAT_S."""
        while True:
            try:
                async with self.registry.wakeups(self.worker) as wakeups:
                    async for _ in wakeups:
                        self._wake.set()
            except Unavailable:
                await asyncio.sleep(1)

    async def _confirm(self, slot: int, fence: int) -> str | None:
        beat = await self.registry.heartbeat(self.worker, self.boot, self._wants_leases())
        return next((lease.call for lease in beat.leases if lease.slot == slot and lease.fence == fence), None)

    # HTTP

    def _app(self) -> web.Application:
        @web.middleware
        async def only_when_ready(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            if not self._loaded:
                return error_response(503, "loading", f"{self._service.role} is still loading its model")
            return await handler(request)

        app = web.Application(middlewares=[errors_in_words, only_when_ready], client_max_size=MAX_BODY_BYTES)
        app.add_routes(self._service.routes())
        return app

    async def _drain(self, registration: "asyncio.Task[None] | None") -> None:
        self.health.set_phase("draining")
        self.draining.set()
        if self._exit_code == EXIT_OK:
            if registration is not None:
                with contextlib.suppress(Unavailable):
                    await self.registry.drain(self.worker, self.boot)
            try:
                await asyncio.wait_for(self._service.drain(), self.settings.drain_s)
            except TimeoutError:
                log.warning("work was still under way after %g s of draining", self.settings.drain_s)
        if registration is not None:
            await _cancelled([registration])  # or a registration under way would outlive this process
            with contextlib.suppress(Unavailable):
                await self.registry.deregister(self.worker, self.boot)


def _freeze_what_is_loaded() -> None:
    """Keep Python's garbage collector from what stays for good: to look through it takes a tenth of a second.

    By itself Python would therefore seldom look for garbage that has lived for some seconds, as all that a call leaves
    has: hundreds of calls' objects that refer to each other would stay, and the threads and buffers that they hold.
    """
    gc.collect()
    gc.freeze()


async def until_idle(block: Block) -> None:
    """The drain of a speech or chat worker: finish what is in flight; open but silent streams are not waited for."""
    while block.in_flight:  # noqa: ASYNC110 - the count lies in shared memory, which wakes nobody
        await asyncio.sleep(DRAIN_POLL_S)


async def _cancelled(tasks: "Iterable[asyncio.Task[None]]") -> None:
    """Return when they have ended, or after SETTLE_S.

    Asked again and again: before Python 3.12, asyncio.wait_for loses a cancel that comes with its result, and redis-py
    calls it for each command.
    """
    deadline, pending = time.monotonic() + SETTLE_S, set(tasks)
    while pending and time.monotonic() < deadline:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)


def main(make_service: Callable[[Runtime], Service]) -> NoReturn:
    """Run a daemon as a program."""
    try:
        settings = settings_module.load()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")

        async def live() -> int:
            return await Runtime(settings, make_service).run()

        code = asyncio.new_event_loop().run_until_complete(live())
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        code = EXIT_DO_NOT_RESTART
    except Exception:
        log.exception("failed")
        code = EXIT_FAILED
    logging.shutdown()
    sys.stderr.flush()
    if code == EXIT_DO_NOT_RESTART:
        time.sleep(EXIT_NOTICED_S)
    os._exit(code)  # neither a closing loop nor a thread deep in a model must hold the end up
