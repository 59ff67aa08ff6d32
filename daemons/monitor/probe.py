"""One look at a worker's health port from outside; what answers there may be anything."""

import asyncio
import json

import aiohttp
from yarl import URL

from daemons.registry import WorkerRecord

TIMEOUT_S = 1.0  # of the whole look
BODY_BYTES = 64 * 1024
PROBLEM_CHARACTERS = 200


def session() -> aiohttp.ClientSession:
    """Opens a connection for each request, follows nobody elsewhere, keeps nothing and unpacks nothing."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
        timeout=aiohttp.ClientTimeout(None),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


async def problem_of(http: aiohttp.ClientSession, worker: WorkerRecord) -> str | None:
    """What is wrong with the worker, None when it is well; so is one that loads or drains within its time limits."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            problem = await _look(http, worker)
    except TimeoutError:
        return f"no answer within {TIMEOUT_S:g} s"
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    return problem and " ".join(problem.split())[:PROBLEM_CHARACTERS]  # one line of a log


async def _look(http: aiohttp.ClientSession, worker: WorkerRecord) -> str | None:
    addr = URL(worker.addr)
    if addr.port is None:
        return f"its address {worker.addr} names no port"
    health = addr.with_port(addr.port + 1)
    status, body = await _get(http, health / "health")
    seen = json.loads(body)
    if status != 200 or not isinstance(seen, dict) or "boot" not in seen:
        return f"port {health.port} answers, but not as a worker's health does"
    if seen["boot"] != worker.boot:
        return f"another process answers on its port (boot {seen['boot']})"
    status, body = await _get(http, health / ("readyz" if seen.get("phase") == "ready" else "livez"))
    return None if status == 200 else body.decode(errors="replace").strip() or f"status {status}"


async def _get(http: aiohttp.ClientSession, url: URL) -> tuple[int, bytes]:
    async with http.get(url, allow_redirects=False) as response:
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > BODY_BYTES:
                raise ValueError(f"more than {BODY_BYTES} bytes at {url.path}")
        return response.status, bytes(body)
