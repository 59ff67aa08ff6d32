"""Health at port+1 of every daemon of a whole box, as probers and Prometheus ask for it."""

import json
import time
import urllib.request
import uuid
from importlib.metadata import version
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from daemons.registry import connect
from ops.private_box import PrivateBox

pytestmark = pytest.mark.e2e

WORKERS = ("stt", "llm", "tts", "agent")
DAEMONS = (*WORKERS, "token", "monitor")


def get(box: PrivateBox, role: str, path: str) -> str:
    port = getattr(box.settings, f"{role}_port") + 1
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        assert answer.status == 200
        text: str = answer.read().decode()
        return text


@pytest.mark.parametrize("role", DAEMONS)
def test_a_daemon_tells_how_it_is(box: PrivateBox, role: str) -> None:
    assert get(box, role, "/livez") == get(box, role, "/readyz") == "ok\n"
    for _ in range(100):
        shown: dict[str, Any] = json.loads(get(box, role, "/health"))
        if shown["in_flight"] == 0:
            break
        time.sleep(0.1)  # the last call's
    uuid.UUID(shown["boot"])
    assert (shown["role"], shown["phase"], shown["registered"]) == (role, "ready", True)
    assert (shown["version"], shown["pid"]) == (version("callbox"), box.pid(role))
    assert shown["slots"] == (box.settings.slots if role in WORKERS else 0)
    assert bool(shown["model"]) == (role in WORKERS), "an agent's is its VAD"
    assert shown["in_flight"] == 0, "nobody calls"
    assert shown["progress_age_s"] >= 0 <= shown["beat_age_s"] < 10


@pytest.mark.parametrize("role", DAEMONS)
def test_a_daemon_has_metrics_that_prometheus_reads(box: PrivateBox, role: str) -> None:
    families = {family.name for family in text_string_to_metric_families(get(box, role, "/metrics"))}
    assert "callbox_requests" in families, "what it has admitted"
    assert families >= {"process_resident_memory_bytes", "process_cpu_seconds"}


@pytest.mark.parametrize("role", DAEMONS)
def test_a_process_of_its_own_answers(box: PrivateBox, role: str) -> None:
    port = getattr(box.settings, f"{role}_port") + 1
    worker = psutil.Process(box.pid(role))
    answering = [child for child in worker.children() if "daemons.health" in child.cmdline()]
    assert len(answering) == 1
    assert port in {one.laddr.port for one in answering[0].net_connections() if one.status == psutil.CONN_LISTEN}


async def test_a_prober_can_check_the_boot(box: PrivateBox) -> None:
    registry = connect(box.settings.redis)
    try:
        boots = {worker.role: worker.boot for worker in (await registry.snapshot()).workers}
    finally:
        await registry.close()
    assert {role: json.loads(get(box, role, "/health"))["boot"] for role in WORKERS} == boots
