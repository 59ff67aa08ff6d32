"""Whatever alerts and dashboards ask for is exported by the real daemons, under that name and with those labels."""

import asyncio
import contextlib
import json
import re
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from daemons import wire
from daemons.audio import STT_RATE_HZ
from daemons.registry import Registry, connect
from daemons.settings import ROOT
from daemons.streams import Endings, SlowReader
from ops.free_ports import free_port
from tests.monitor.test_alerts import GROUPS, promtool, rules_in
from tests.worker_process import WorkerProcess

DASHBOARD: dict[str, Any] = json.loads((ROOT / "etc/grafana/callbox.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OF_THE_TARGET = {"job", "instance", "daemon"}  # given by the scrape configuration
LONG = "This is one of very many sentences that nobody will ever hear. " * 60

PATIENCE_S = 10
STARTED_AT_ONCE = 2  # each has a time limit to be ready in

Labels = dict[str, set[str]]  # name → values


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in rules_in(GROUPS))
    yield from (target["expr"] for panel in PANELS for target in panel["targets"])


def asked_for() -> dict[str, Labels]:
    """Each metric that an expression names, with the label values that it selects."""
    asked: dict[str, Labels] = defaultdict(lambda: defaultdict(set))
    for expr in expressions():
        for name in re.findall(r"\b(?:callbox|process)_\w+", expr):
            asked.setdefault(name, defaultdict(set))
        for name, matchers in re.findall(r"\b((?:callbox|process)_\w+)\{([^}]*)\}", expr):
            for label, values in re.findall(r'(\w+)=~?"([^"]*)"', matchers):
                if label not in OF_THE_TARGET:
                    asked[name][label] |= set(values.split("|"))
    return asked


def exported(*texts: str) -> dict[str, Labels]:
    """Each metric of these expositions by the names of its samples, with all labels that were seen."""
    there: dict[str, Labels] = defaultdict(lambda: defaultdict(set))
    for text in texts:
        for family in text_string_to_metric_families(text):
            there.setdefault(family.name + ("_total" if family.type == "counter" else ""), defaultdict(set))
            for sample in family.samples:
                for label, value in sample.labels.items():
                    there[sample.name][label].add(value)
                there.setdefault(sample.name, defaultdict(set))
    return there


def test_each_panel_asks_something_that_prometheus_understands(tmp_path: Path) -> None:
    assert DASHBOARD["__inputs"][0]["name"] == "DS_PROMETHEUS"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    places: set[tuple[int, int]] = set()
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
        assert panel["targets"], panel["title"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        mine = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert places.isdisjoint(mine), f"{panel['title']} lies on another panel"
        places |= mine
    records = [
        {"record": f"panel:{panel['id']}:{target['refId']}", "expr": target["expr"]}
        for panel in PANELS
        for target in panel["targets"]
    ]
    rules = tmp_path / "panels.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    said = promtool("check", "rules", rules)
    assert said.returncode == 0, said.stderr
    assert f"{len(records)} rules found" in said.stdout


@pytest.fixture
async def registry(redis_url: str) -> AsyncIterator[Registry]:
    registry = connect(redis_url)
    yield registry
    await registry.close()


@pytest.fixture(scope="module")
def daemons(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, WorkerProcess]]:
    """All six, each for itself: nobody calls."""
    folder = tmp_path_factory.mktemp("daemons")
    special: dict[str, dict[str, Any]] = {
        "llm": {"llm_model": "smollm2-135m", "llm_context_tokens": 1024},
        "token": {"token_secret": "signs calls", "livekit_api_secret": "s" * 32, "livekit_port": free_port()},
        "agent": {"livekit_api_secret": "s" * 32, "livekit_port": free_port()},
    }
    processes = {
        role: WorkerProcess(role, redis_url, folder, **special.get(role, {}))
        for role in ("monitor", "tts", "stt", "llm", "agent", "token")
    }
    with contextlib.ExitStack() as ends, ThreadPoolExecutor(STARTED_AT_ONCE) as pool:
        list(pool.map(ends.enter_context, processes.values()))
        yield processes


@pytest.mark.integration
async def test_whatever_is_asked_for_is_exported(daemons: dict[str, WorkerProcess], registry: Registry) -> None:
    for kind in wire.ProgramEvent:
        await registry.note(kind, {"program": "tts"})
    async with aiohttp.ClientSession() as http:
        await leave_in_every_way(http, daemons["tts"], daemons["stt"])
        async with http.post(f"{daemons['token'].url}/api/calls") as refused:
            assert refused.status == 503
        in_process = CollectorRegistry()
        with contextlib.suppress(SlowReader), Endings(in_process).counted():
            raise SlowReader("it takes ten seconds in a daemon")

        async def missing() -> list[str]:
            pages = await asyncio.gather(*(asyncio.to_thread(metrics_of, daemon) for daemon in daemons.values()))
            there = exported(*pages, generate_latest(in_process).decode())
            return [
                f"{name}: {label}={value}"
                for name, labels in asked_for().items()
                for label, values in (labels or {"": {""}}).items()
                for value in values
                if name not in there or (label and value not in there[name][label])
            ]

        for _ in range(PATIENCE_S):  # metrics are published once a second
            if not (problems := await missing()):
                return
            await asyncio.sleep(1)
        assert not problems


async def leave_in_every_way(http: aiohttp.ClientSession, tts: WorkerProcess, stt: WorkerProcess) -> None:
    """A client that is refused; one that vanishes and one that closes in words, both in the middle of an answer."""
    speak = wire.TtsText(id=1, text=LONG[:3900]).model_dump_json()
    async with http.ws_connect(f"{tts.url}/tts/live") as vanishing, http.ws_connect(f"{tts.url}/tts/live") as closing:
        async with http.post(f"{tts.url}/tts/stream", json={"text": "Hello."}) as refused:
            assert refused.status == 503
        for socket in (vanishing, closing):
            await socket.send_str(speak)
            await socket.receive(timeout=20)
        cut(vanishing)
    async with http.ws_connect(f"{stt.url}/stt/live") as listening:
        await listening.send_str(wire.SttStart(utterance=1).model_dump_json())
        await listening.send_bytes(bytes(2 * 20 * STT_RATE_HZ))
        await listening.send_str(wire.SttCommit(id=1).model_dump_json())
        cut(listening)
    for worker in (tts, stt):
        assert await asyncio.to_thread(worker.becomes_idle)
    page = exported(await asyncio.to_thread(metrics_when, tts, "cancelled"))
    assert {"client_gone", "cancelled"} <= page["callbox_streams_ended_total"]["how"]


def cut(socket: aiohttp.ClientWebSocketResponse) -> None:
    """The connection is gone, without a closing handshake."""
    connection = socket._response.connection
    assert connection is not None
    assert connection.transport is not None
    connection.transport.abort()


def metrics_when(worker: WorkerProcess, text: str) -> str:
    assert worker.metric_reaches("callbox_streams_ended_total", 2)
    page = metrics_of(worker)
    assert text in page
    return page


def metrics_of(daemon: WorkerProcess) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.port + 1}/metrics", timeout=5) as answer:
        page: str = answer.read().decode()
    return page
