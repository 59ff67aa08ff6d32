"""Health at port+1, in a small process of its own, so that a model that holds the GIL cannot silence it.

The worker writes a block of shared memory (`Block`); the child reads it and answers HTTP. This file runs in both, and
imports nothing but the standard library: the child must start in a blink and stay small.
"""

import contextlib
import ctypes
import json
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

BEAT_LIMIT_S = 10.0
REQUEST_TIMEOUT_S = 2.0
MAX_CONNECTIONS = 32
TEXT_BYTES = 256 * 1024
PHASES = ("loading", "ready", "draining")


class _Numbers(ctypes.Structure):
    """Each field is written with one aligned store, so a reader never sees half of it.

    There are two places for texts: version v stands in place v % 2, and v + 1 is written into the other before it
    counts. So a writer that is stopped halfway, by a signal or by a model that holds the GIL, leaves v to be read.
    """

    _fields_: ClassVar = [
        ("beat_ns", ctypes.c_uint64),
        ("progress", ctypes.c_uint64),
        ("progress_ns", ctypes.c_uint64),
        ("in_flight", ctypes.c_uint64),
        ("phase", ctypes.c_uint64),
        ("registered", ctypes.c_uint64),
        ("upstream_away", ctypes.c_uint64),
        ("started_ns", ctypes.c_uint64),
        ("text_version", ctypes.c_uint64),
        ("facts_bytes", ctypes.c_uint64 * 2),
        ("metrics_bytes", ctypes.c_uint64 * 2),
    ]


_TEXT_AT = ctypes.sizeof(_Numbers)
_SIZE = _TEXT_AT + 2 * TEXT_BYTES


class Block:
    """The shared memory. One process writes; any number read.

    `facts` are what does not change from beat to beat (boot, role, slots, model …), `metrics` is Prometheus text.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.memfd_create("callbox-health") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, _SIZE)
        self._map = mmap.mmap(self.fd, _SIZE)
        self._n = _Numbers.from_buffer(self._map)
        if fd is None:
            self._n.started_ns = time.monotonic_ns()
            self.beat()
            self.progress()

    def beat(self) -> None:
        self._n.beat_ns = time.monotonic_ns()

    def progress(self) -> None:
        """Work moved on by one step."""
        self._n.progress += 1
        self._n.progress_ns = time.monotonic_ns()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Work is in flight that this process could advance now. For the event loop's thread only."""
        self.progress()
        self._n.in_flight += 1
        try:
            yield
        finally:
            self._n.in_flight -= 1
            self.progress()

    @property
    def in_flight(self) -> int:
        return int(self._n.in_flight)

    def set_phase(self, phase: str) -> None:
        self._n.phase = PHASES.index(phase)

    def set_registered(self, registered: bool) -> None:
        self._n.registered = int(registered)

    def set_upstream_away(self, away: bool) -> None:
        """What this worker's engine stands on, a server elsewhere, does not answer."""
        self._n.upstream_away = int(away)

    def publish(self, facts: dict[str, Any], metrics: bytes) -> None:
        text = json.dumps(facts).encode()
        if len(text) + len(metrics) > TEXT_BYTES:
            metrics = b"# the metrics of this worker outgrew the health block\n"
        place = (self._n.text_version + 1) % 2
        at = _TEXT_AT + place * TEXT_BYTES
        self._map[at : at + len(text) + len(metrics)] = text + metrics
        self._n.facts_bytes[place], self._n.metrics_bytes[place] = len(text), len(metrics)
        self._n.text_version += 1

    def read(self) -> tuple[dict[str, Any], bytes]:
        """(everything that /health shows, Prometheus text)."""
        facts, metrics = self._texts()
        now_ns = time.monotonic_ns()
        shown = {
            **json.loads(facts or b"{}"),
            "phase": PHASES[self._n.phase],
            "registered": bool(self._n.registered),
            "upstream_away": bool(self._n.upstream_away),
            "in_flight": int(self._n.in_flight),
            "progress": int(self._n.progress),
            "progress_age_s": round((now_ns - self._n.progress_ns) / 1e9, 3),
            "beat_age_s": round((now_ns - self._n.beat_ns) / 1e9, 3),
            "age_s": round((now_ns - self._n.started_ns) / 1e9, 3),
        }
        return shown, metrics

    def _texts(self) -> tuple[bytes, bytes]:
        while True:  # again only when a new version came while the old one was copied
            version = self._n.text_version
            place = version % 2
            facts_at = _TEXT_AT + place * TEXT_BYTES
            metrics_at = facts_at + self._n.facts_bytes[place]
            facts = self._map[facts_at:metrics_at]
            metrics = self._map[metrics_at : metrics_at + self._n.metrics_bytes[place]]
            if version == self._n.text_version:
                return facts, metrics


def why_not_live(shown: dict[str, Any]) -> str | None:
    """The reason for a 503 on /livez, None when live."""
    if shown["beat_age_s"] > BEAT_LIMIT_S:
        return f"no beat for {shown['beat_age_s']:.1f} s"
    if shown["phase"] == "loading" and shown["age_s"] > shown.get("load_timeout_s", float("inf")):
        return f"still loading after {shown['age_s']:.0f} s"
    stall_s = shown.get("stall_s", float("inf"))
    if shown["phase"] != "loading" and shown["in_flight"] and shown["progress_age_s"] > stall_s:
        return f"{shown['in_flight']} in flight, no progress for {shown['progress_age_s']:.1f} s"
    return None


def why_not_ready(shown: dict[str, Any]) -> str | None:
    """The reason for a 503 on /readyz, None when ready."""
    if not_live := why_not_live(shown):
        return not_live
    if shown["phase"] != "ready":
        return str(shown["phase"])
    if not shown["registered"]:
        return "not registered"
    if shown.get("upstream_away"):
        return "its upstream does not answer"
    return None


class _Handler(BaseHTTPRequestHandler):
    block: ClassVar[Block]
    places: ClassVar = threading.BoundedSemaphore(MAX_CONNECTIONS)
    timeout = REQUEST_TIMEOUT_S

    def handle(self) -> None:
        if not self.places.acquire(blocking=False):
            return
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            pass  # the prober went away; there is nobody to tell
        finally:
            self.places.release()

    def do_GET(self) -> None:
        shown, metrics = self.block.read()
        match self.path.partition("?")[0]:
            case "/livez":
                self._verdict(why_not_live(shown))
            case "/readyz":
                self._verdict(why_not_ready(shown))
            case "/health":
                self._answer(200, "application/json", json.dumps(shown).encode())
            case "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics)
            case _:
                self._answer(404, "text/plain", b"here are /livez /readyz /health /metrics\n")

    def _verdict(self, problem: str | None) -> None:
        self._answer(503 if problem else 200, "text/plain", f"{problem or 'ok'}\n".encode())

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come each second; they are not news."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listening: socket.socket, parent_pid: int | None) -> None:
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening
        self._parent_pid = parent_pid

    def service_actions(self) -> None:
        if self._parent_pid is not None and os.getppid() != self._parent_pid:
            os._exit(0)


def serve(block: Block, listening: socket.socket, parent_pid: int | None = None) -> None:
    """Answer for the block's worker for ever; with `parent_pid`, end this process when that is its parent no more."""
    _Handler.block = block
    _Server(listening, parent_pid).serve_forever(poll_interval=0.5)


def main(block_fd: int, socket_fd: int, parent_pid: int) -> None:
    """The child: answer on an inherited, listening socket until the parent is gone."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # a draining worker still wants to be seen
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    serve(Block(block_fd), socket.socket(fileno=socket_fd), parent_pid)


if __name__ == "__main__":
    main(*(int(arg) for arg in sys.argv[1:4]))
