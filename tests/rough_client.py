"""Requests that no client's library would make, and what a worker must answer to each."""

import asyncio
import json

import pytest

from daemons.doors import MAX_HEADER_BYTES, MAX_HEADERS
from tests.worker_process import WorkerProcess

ANSWER_S = 10.0
PAUSE_S = 0.1
LINE = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
GIVEN = LINE.count(b": ")
BODY = b"POST %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Encoding: gzip\r\n%b\r\nContent-Length: 5\r\n\r\n"


async def answer(worker: WorkerProcess, *request: bytes) -> tuple[int, bytes]:
    """Status and body of what comes until the worker closes; 0 when it closes without a word that can be read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
    said = b""
    try:
        async with asyncio.timeout(ANSWER_S):
            for part in request:
                writer.write(part)
                await asyncio.sleep(PAUSE_S)
            while piece := await reader.read(65536):
                said += piece
    except ConnectionError:
        pass  # it closed before it had read everything
    finally:
        writer.close()
    head, _, body = said.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1] if head else 0), body


def header(size: int) -> bytes:
    """With its name, its value has `size` bytes."""
    return b"X-Long: " + b"x" * (size - len(b"X-Long")) + b"\r\n"


CUT_OFF = 0  # while it is still being sent: whether the client gets to read the 400 is for TCP to say
REQUESTS: dict[str, tuple[bytes, int]] = {
    "the longest header": (LINE + header(MAX_HEADER_BYTES) + b"\r\n", 200),
    "a longer header": (LINE + header(MAX_HEADER_BYTES + 100) + b"\r\n", 400),
    "a header without an end": (LINE + header(2**20)[:-2], CUT_OFF),
    "the most headers": (LINE + header(10) * (MAX_HEADERS - GIVEN) + b"\r\n", 200),
    "one header more": (LINE + header(10) * (MAX_HEADERS - GIVEN + 1) + b"\r\n", 400),
    "headers without an end": (LINE + header(10) * 100_000, CUT_OFF),
    "a header that is none": (LINE + b"no colon\r\n\r\n", 400),
    "two lengths": (LINE + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "a line without an end": (b"GET /openapi.json?" + b"x" * 2**20, CUT_OFF),
    "no HTTP": (b"\x16\x03\x01 what a browser says to TLS\r\n\r\n", 400),
}
rough_requests = pytest.mark.parametrize(("request_", "status"), REQUESTS.values(), ids=REQUESTS)


async def treats_as_told(worker: WorkerProcess, request: bytes, status: int) -> None:
    """A refusal is a status and a line in the log, no traceback; and the worker goes on."""
    answered, _ = await answer(worker, request)
    assert answered == status or (answered == 400 and status == CUT_OFF), answered
    assert (await answer(worker, LINE + b"\r\n"))[0] == 200
    assert "Traceback" not in (log := worker.log.read_text()), log
    assert status == 200 or "it was refused" in log, log


async def refuses_a_broken_body(worker: WorkerProcess, path: str, content_type: str) -> None:
    head = BODY % (path.encode(), b"Content-Type: " + content_type.encode())
    status, body = await answer(worker, head, b"no zip")
    assert status == 400, body
    assert "error" in json.loads(body), body
    assert "Traceback" not in (log := worker.log.read_text()), log
