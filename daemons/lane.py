"""Threads that run an engine's steps: committed work first, and a cancelled step is told to stop."""

import asyncio
import contextlib
import itertools
import os
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

from daemons.wire import Priority

T = TypeVar("T")
Step = Callable[[threading.Event], T]  # its argument is set when nobody waits for the result any more

_RANK: dict[Priority, int] = {"committed": 0, "speculative": 1}
_LAST_RANK = 2
_END = object()
STOP_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


@dataclass(order=True, slots=True)
class _Job:
    rank: int
    number: int
    step: Step[Any] | None = field(compare=False)
    ended: "asyncio.Future[Any] | None" = field(compare=False)
    cancelled: threading.Event = field(compare=False, default_factory=threading.Event)
    started: bool = field(compare=False, default=False)


class Lane:
    """An engine's own threads. Who is cancelled while it awaits a step leaves when that step has stopped."""

    def __init__(self, name: str, threads: int, metrics: CollectorRegistry, *, niceness: int = 0) -> None:
        """`niceness` as of nice(1): how far these threads, and what the engine starts in them, stand behind others."""
        self._niceness = niceness
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()  # bounded by admission: who waits holds a place
        self._numbers = itertools.count()
        self._starting = threading.Lock()
        self._aborted = Counter(
            "callbox_aborted_steps_total", "Engine steps cancelled before they had ended", registry=metrics
        )
        self._stop_s = Histogram(
            "callbox_cancel_to_stop_seconds",
            "From a cancel to the end of the engine's step",
            buckets=STOP_BUCKETS_S,
            registry=metrics,
        )
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True) for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, step: Step[T], priority: Priority = "committed", cancelled: threading.Event | None = None) -> T:
        """The result of `step`, run in one of the threads; what it raises is raised here.

        `cancelled` is given where more is to happen when it is set than that the step may see it.
        """
        return await self._run(step, priority, cancelled or threading.Event())

    async def steps(
        self, items: Callable[[threading.Event], Iterator[T]], priority: Priority = "committed"
    ) -> AsyncGenerator[T, None]:
        """The items of `items(cancelled)`, each made in a thread when asked for, so that others come in between."""
        cancelled = threading.Event()
        iterator: Iterator[T] | None = None

        def advance(_: threading.Event) -> Any:
            nonlocal iterator
            if iterator is None:
                iterator = items(cancelled)
            return next(iterator, _END)

        while (item := await self._run(advance, priority, cancelled)) is not _END:
            yield item

    async def _run(self, step: Step[T], priority: Priority, cancelled: threading.Event) -> T:
        ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        job = _Job(_RANK[priority], next(self._numbers), step, ended, cancelled)
        self._jobs.put(job)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            cancelled_at = time.monotonic()
            cancelled.set()
            with self._starting:
                must_wait = job.started
            self._aborted.inc()
            if must_wait:
                while not ended.done():  # who is cancelled again while waiting would leave an engine at work
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([ended])
                self._stop_s.observe(time.monotonic() - cancelled_at)
            raise

    def close(self) -> None:
        """End the threads after what is queued; waits at most a second for each."""
        for _ in self._threads:
            self._jobs.put(_Job(_LAST_RANK, next(self._numbers), None, None))
        for thread in self._threads:
            thread.join(1)

    def _work(self) -> None:
        os.nice(self._niceness)  # of this thread alone, on Linux
        while True:
            job = self._jobs.get()
            if job.step is None or job.ended is None:
                return
            with self._starting:
                job.started = not job.cancelled.is_set()
            if not job.started:
                continue
            try:
                result, error = job.step(job.cancelled), None
            except Exception as failure:
                result, error = None, failure
            with contextlib.suppress(RuntimeError):  # the loop may have been closed meanwhile
                job.ended.get_loop().call_soon_threadsafe(_settle, job.ended, result, error)
            del job, result, error  # a waiting thread must not keep the last result alive


def _settle(ended: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if ended.cancelled():
        return
    if error is None:
        ended.set_result(result)
    else:
        ended.set_exception(error)
        ended.exception()  # read here: after a cancel nobody else would, and asyncio would complain
