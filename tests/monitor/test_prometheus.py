"""A real Prometheus beside a real monitor and a real worker: real faults make alerts fire and clear."""

import asyncio
import json
import os
import re
import signal
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from daemons.errors import Unavailable
from daemons.registry import AcquireStatus, Registry, connect
from daemons.settings import ROOT, Settings
from ops.free_ports import free_port
from ops.programs import DAEMONS
from ops.render import prometheus_yml
from tests.monitor.test_alerts import RULES
from tests.waiting import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

FIRES_S = 60.0  # on a machine that is busy with other things
ASK_S = 0.5


@dataclass
class Prometheus:
    port: int

    def firing(self) -> dict[str, list[dict[str, Any]]]:
        """The alerts that fire, by name."""
        alerts: dict[str, list[dict[str, Any]]] = {}
        for alert in self._get("/api/v1/alerts")["alerts"]:
            if alert["state"] == "firing":
                alerts.setdefault(alert["labels"]["alertname"], []).append(alert)
        return alerts

    async def fires(self, name: str, **labels: str) -> None:
        """Wait until this alert fires with these labels, and that its words have no holes."""

        def is_so() -> bool:
            for alert in self.firing().get(name, []):
                if labels.items() <= alert["labels"].items():
                    words = " ".join(alert["annotations"].values())
                    assert "<no value>" not in words, words
                    assert "<error" not in words, words
                    return True
            return False

        await until(is_so, FIRES_S)

    async def is_silent(self, name: str, **labels: str) -> None:
        def is_so() -> bool:
            return not any(labels.items() <= alert["labels"].items() for alert in self.firing().get(name, []))

        await until(is_so, FIRES_S)

    def is_up(self) -> bool:
        try:
            return len(self._get("/api/v1/targets")["activeTargets"]) == len(DAEMONS)
        except OSError:
            return False

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
        return data


@contextmanager
def prometheus(settings: Settings, folder: Path) -> Iterator[Prometheus]:
    """As the box's operator starts it, but in a hurry: with what is rendered, shorter waits and a shorter memory."""
    rules = folder / "hurried.rules.yml"
    rules.write_text(hurried(RULES.read_text()))
    config = folder / "prometheus.yml"
    config.write_text(re.sub(r"(interval|timeout): \ds", r"\1: 1s", prometheus_yml(settings, rules)))
    port = free_port()
    command = (
        *("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
    )
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            yield Prometheus(port)
        finally:
            process.terminate()


def hurried(rules: str) -> str:
    """`for` is short, a loss is news for 15 s, and a caller waits long after 2 s."""
    for what, instead in (
        (r"for: \d+[sm]", "for: 1s"),
        (r"(loss_timestamp_seconds\{.*\}\)) < 600", r"\1 < 15"),
        (r"(wait_seconds\)) > 20", r"\1 > 2"),
    ):
        rules, count = re.subn(what, instead, rules)
        assert count, what
    return rules


@asynccontextmanager
async def caller(registry: Registry, call: str) -> AsyncIterator[None]:
    """Asks for a tts slot again and again, as a page does, and keeps it once it has it; hangs up at the end."""
    fence = 0

    async def ask() -> None:
        nonlocal fence
        while True:
            with suppress(Unavailable):
                answer = await registry.acquire(call, ["tts"], queue_max=4)
                if answer.status is AcquireStatus.GRANTED:
                    fence = answer.fence or 0
                    await registry.renew(call, fence)
            await asyncio.sleep(ASK_S)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.wait([asking])
        await registry.cancel(call)
        await registry.release(call, fence)


@pytest.fixture
async def registry(redis_url: str, redis: object) -> AsyncIterator[Registry]:
    registry = connect(redis_url)
    yield registry
    await registry.close()


async def test_real_faults_make_alerts_fire_and_clear(redis_url: str, registry: Registry, tmp_path: Path) -> None:
    monitor = WorkerProcess("monitor", redis_url, tmp_path)
    tts = WorkerProcess("tts", redis_url, tmp_path, module="tests.tiny_daemon")
    settings = Settings(tts_port=tts.port, monitor_port=monitor.port, var_dir=tmp_path)
    with prometheus(settings, tmp_path) as watcher, monitor:
        async with AsyncExitStack() as second:
            with tts:
                await until(watcher.is_up, within_s=20)
                await watcher.is_silent("CallboxMonitorGone")
                await watcher.is_silent("CallboxDaemonDown", daemon="tts")
                await watcher.fires("CallboxDaemonDown", daemon="llm")  # it was never started
                await watcher.is_silent("CallboxNoWorker", role="tts")

                # A holder that dies: nobody renews
                await registry.acquire("forgotten", ["tts"], ttl_ms=500)
                await watcher.fires("CallboxCallLost")

                # More callers than lines
                async with caller(registry, "first"):
                    await asyncio.sleep(2 * ASK_S)
                    await second.enter_async_context(caller(registry, "second"))
                    await watcher.fires("CallboxQueueWaiting")
                await watcher.is_silent("CallboxQueueWaiting")
                await watcher.is_silent("CallboxCallLost")

                # A worker that is killed in mid-call
                assert "CallboxWorkerUnhealthy" not in watcher.firing()
                os.kill(tts.pid, signal.SIGKILL)
            await watcher.fires("CallboxWorkerUnhealthy", role="tts", worker=f"127.0.0.1:{tts.port}")
            await watcher.fires("CallboxDaemonDown", daemon="tts")
            await watcher.fires("CallboxNoWorker", role="tts")
            with tts:  # another boot of it
                await watcher.fires("CallboxMemberLost")
                await watcher.is_silent("CallboxWorkerUnhealthy")
                await watcher.is_silent("CallboxDaemonDown", daemon="tts")
                await watcher.is_silent("CallboxNoWorker", role="tts")

        # What has happened does not depend on the monitor's life
        await registry.note("crash_loop", {"program": "tts"})
        await watcher.fires("CallboxCrashLoop", program="tts")
        assert monitor.end() == 0
        await watcher.fires("CallboxMonitorGone")
        await registry.note("crash_loop", {"program": "llm"})
        with monitor:
            await watcher.fires("CallboxCrashLoop", program="llm")
            await watcher.is_silent("CallboxMonitorGone")
            await watcher.fires("CallboxCrashLoop", program="tts")
            for program in ("llm", "tts"):
                await registry.note("crash_loop_over", {"program": program})
            await watcher.is_silent("CallboxCrashLoop")


def test_prometheus_takes_what_the_box_renders(tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text(prometheus_yml(Settings(var_dir=tmp_path), ROOT / "etc/prometheus/callbox.rules.yml"))
    said = subprocess.run(("promtool", "check", "config", config), capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
