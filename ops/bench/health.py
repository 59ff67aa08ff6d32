"""How soon health answers while a model holds the GIL: the child process beside a thread of the worker itself."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Callable

import aiohttp

from daemons.settings import ROOT
from ops.figures import Bound, Report, Summary
from ops.run import StepFailed

PROBE_EVERY_S = 0.05
PROBE_TIMEOUT_S = 30.0
REST_S = 0.3
START_S = 30.0
CHILD_LIMIT_MS = 500.0  # half of what a prober waits
THREAD_LEAST_MS = 1000.0  # else nothing was held, and the run shows nothing


async def measure(holds: int, hold_s: float, on_hold: Callable[[int], None]) -> Report:
    """Probe both while the worker holds the GIL `holds` times, for about `hold_s` each. Raises StepFailed."""
    one_each = aiohttp.TCPConnector(force_close=True)
    async with _worker(hold_s) as (process, ports), aiohttp.ClientSession(connector=one_each) as http:
        await asyncio.gather(*(_answer_ms(http, port) for port in ports.values()))  # both have started
        probing = {name: asyncio.create_task(_probe(http, port)) for name, port in ports.items()}
        held_ms = []
        for _ in range(holds):
            held_ms.append(await _hold(process))
            await asyncio.sleep(REST_S)  # for the answers that the hold has held up
            on_hold(1)
        for task in probing.values():
            task.cancel()
        answers_ms = {name: await task for name, task in probing.items()}
    child, thread = Summary.of(answers_ms["child"]), Summary.of(answers_ms["thread"])
    return Report(
        "health while a model holds the GIL",
        facts={
            "holds": holds,
            "each is": "one call into C on one core, sum(itertools.repeat(1, n))",
            "probed each": f"{PROBE_EVERY_S * 1000:.0f} ms",
        },
        samples={"GIL held": Summary.of(held_ms), "child process": child, "thread of the worker": thread},
        ratios={"the thread's worst answer to the child's": thread.max / child.max},
        bounds=[
            Bound("worst answer of the child process", child.max, CHILD_LIMIT_MS, "ms"),
            Bound("worst answer of the thread", thread.max, min(THREAD_LEAST_MS, hold_s * 500), "ms", "at least"),
        ],
    )


@contextlib.asynccontextmanager
async def _worker(hold_s: float) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, int]]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.bench.gil_holder", str(hold_s)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield process, await asyncio.wait_for(_said(process), START_S)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _hold(process: asyncio.subprocess.Process) -> float:
    """Have the worker hold its GIL once; how long it did, in ms."""
    assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
    process.stdin.write(b"hold\n")
    held_ms: float = (await asyncio.wait_for(_said(process), PROBE_TIMEOUT_S))["held_ms"]
    return held_ms


async def _said(process: asyncio.subprocess.Process) -> dict[str, int]:
    assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
    line = await process.stdout.readline()
    if not line:
        raise StepFailed(f"the worker ended with {await process.wait()}")
    said: dict[str, int] = json.loads(line)
    return said


async def _probe(http: aiohttp.ClientSession, port: int) -> list[float]:
    """Until cancelled; then how long each answer took, in ms."""
    answers_ms: list[float] = []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            answers_ms.append(await _answer_ms(http, port))
            await asyncio.sleep(PROBE_EVERY_S)
    return answers_ms


async def _answer_ms(http: aiohttp.ClientSession, port: int) -> float:
    began_s = time.perf_counter()
    async with http.get(f"http://127.0.0.1:{port}/livez", timeout=aiohttp.ClientTimeout(PROBE_TIMEOUT_S)) as answer:
        await answer.read()
    return (time.perf_counter() - began_s) * 1000
