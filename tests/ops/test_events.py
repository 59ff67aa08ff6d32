"""The audit log in words: every kind that the scripts and the listener write, and the command that shows them."""

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from importlib import resources
from pathlib import Path
from subprocess import PIPE, Popen
from typing import IO

import pytest
from redis.asyncio import Redis
from typer.testing import CliRunner

from daemons.errors import BadRequest
from daemons.registry import Event, SwapStatus, connect
from daemons.settings import ROOT
from daemons.wire import ProgramEvent
from ops import events
from ops.cli import app
from ops.redis_server import RedisServer
from tests.registry.box import Box, Time
from tests.waiting import until

CALLBOX = Path(sys.executable).with_name("callbox")
AT_MS = 1_763_806_445_678


def event(kind: str, **fields: str) -> Event:
    return Event(f"{AT_MS}-0", kind, 1, 0, fields)


def kinds_of_the_scripts() -> set[str]:
    """Every kind that a script can write, read from the scripts themselves."""
    folder = resources.files("daemons.registry") / "lua"
    source = "".join(script.read_text() for script in folder.iterdir() if script.name.endswith(".lua"))
    source = re.sub(r"--.*", "", source)
    kinds = set(re.findall(r"\blog\('(\w+)'", source))
    for arguments in re.findall(r"end_call\(\w+, ([^)]*)\)", source):
        kinds |= set(re.findall(r"'([a-z]+)'", arguments.partition(", '")[0] if " and " in arguments else arguments))
    for arguments in re.findall(r"set_state\(\w+, ([^)]*)\)", source):
        kinds |= {state.lower() for state in re.findall(r"'([A-Z]+)'", arguments)}
    return kinds


async def story(box: Box) -> list[Event]:
    """A registry to which everything happens that the scripts know."""
    registry = box.registry
    await box.up("a:1", "agent", slots=2)
    await box.up("t:1", "tts")
    first = await box.grant("call-1", "agent", "tts")
    for call in ("call-2", "call-3", "call-4"):
        await box.acquire(call, "agent", "tts", queue_max=2)  # the third is refused
    await box.up("t:2", "tts")  # reserved for call-2
    await registry.drain("t:2", box.boot("t:2"))  # which waits again
    await box.up("t:3", "tts")
    await registry.cancel("call-3")
    await box.pass_time(7000, beating=("a:1", "t:1", "t:3"), holding={"call-1": first})  # it does not come
    await registry.drain("t:1", box.boot("t:1"))
    swapped = await registry.swap("call-1", first, "tts", 15_000)
    assert swapped.status is SwapStatus.OK
    await box.up("t:3", "tts")  # its former boot is retired, and call-1 has lost it
    await registry.release("call-1", first)
    bundle = (await box.acquire("call-5", "agent", "tts")).bundle
    fence = bundle["agent"].fence
    for _ in range(3):
        await registry.probe("t:3", box.boot("t:3"), ok=False)
    await registry.register("t:4", "t:4-1", "tts", "http://t:4", 1)
    for ok in (False, False, False, True, True):
        await registry.probe("t:4", "t:4-1", ok=ok)  # well again, and still loading
    await box.pass_time(16_000, beating=("a:1",))  # nobody renews call-5
    await box.pass_time(16_000)  # and nobody beats
    await registry.deregister("a:1", box.boot("a:1"))
    told = list(await registry.events(count=10_000))
    await box.redis.flushall()  # it loses its data
    assert fence
    await registry.adopt("call-5", fence, bundle)
    return told + list(await registry.events(count=10_000))


def test_every_kind_has_a_sentence_and_every_sentence_a_kind() -> None:
    assert kinds_of_the_scripts() | set(map(str, ProgramEvent)) == events.KINDS


@pytest.mark.integration
async def test_everything_that_happens_is_told_in_words(redis: Redis) -> None:
    told = await story(Box(redis, Time()))
    assert {entry.kind for entry in told} == kinds_of_the_scripts()
    for entry in told:
        sentence = events.sentence(entry)
        assert not sentence.startswith(f"{entry.kind} "), f"shown raw: {sentence}"
        who = entry.data.get("call") or "{role} {worker} ".format_map(entry.data)
        assert sentence.startswith(who), sentence
        assert not re.search(r"[{}=]", sentence), sentence
    sentences = [events.sentence(entry) for entry in told]
    assert "call-1 got its slots at once: agent a:1/0, tts t:1/0; fence 1" in sentences
    assert "tts t:3 is NOT WELL: probes failed; it gets no new calls and keeps those it has" in sentences


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            event("granted", call="c", fence="7", was="QUEUED", waited_ms="12345", members="agent=h:1/0 tts=h:2/1"),
            "c got its slots after 12.3 s: agent h:1/0, tts h:2/1; fence 7",
        ),
        (event("queued", call="c", position="2"), "c waits for free slots, place 2"),
        (event("queued", call="c", why="its worker drains"), "c waits again, where it was: its worker drains"),
        (event("cancelled", call="c", fence="0", was="QUEUED"), "c left the queue"),
        (
            event("program_fatal", program="nginx", wait_s="30"),
            "nginx does not start: it ended within a second, over and over. Tried again in 30 s",
        ),
        (event("a_new_kind", worker="h:1", more="than known"), "a_new_kind more=than known worker=h:1"),
        (event("granted", call="c"), "granted call=c"),
    ],
)
def test_what_is_known_is_a_sentence_and_the_rest_is_shown(entry: Event, sentence: str) -> None:
    assert events.sentence(entry) == sentence


def test_a_line_says_when_by_the_clock_on_the_wall() -> None:
    when = datetime.fromtimestamp(AT_MS / 1000).strftime("%Y-%m-%d %H:%M:%S")
    assert events.line(event("a_kind", text="two\nlines\x1b[2J")) == f"{when}.678  a_kind text=two lines [2J"


def test_what_is_asked_for() -> None:
    granted = event("granted", call="call-12", members="agent=h:1/0 tts=h:2/0")
    assert events.concerns(granted, "call-1", None)
    assert not events.concerns(granted, "call-2", None)
    assert events.concerns(granted, None, "h:2")
    assert not events.concerns(granted, None, "h")
    assert events.concerns(event("gone", worker="h:2", role="tts"), None, "tts")
    assert events.concerns(event("swapped", call="c", worker="h:3", was="h:2"), None, "h:2")
    assert events.concerns(event("stalled", program="tts"), None, "tts")
    assert not events.concerns(event("gone", worker="h:2", role="tts"), "call-1", "tts")


def test_a_while_ago() -> None:
    assert events.since("10m", 1_000_000) == "400000-0"
    assert events.since("90s", 1_000_000.4) == "910000-0"
    assert events.since("2d", 1_000) == "0-0"
    for wrong in ("10", "m", "-1h", "10 minutes"):
        with pytest.raises(BadRequest, match="10m"):
            events.since(wrong, 0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


async def note(redis_url: str, *notes: tuple[str, dict[str, str]]) -> None:
    registry = connect(redis_url)
    for kind, fields in notes:
        await registry.note(kind, fields)
    await registry.close()


def waiting(call: str) -> tuple[str, dict[str, str]]:
    return "queued", {"call": call, "position": "1"}


def start(redis_url: str, *words: str, stdout: int | IO[str] = PIPE, stderr: int | IO[str] = PIPE) -> "Popen[str]":
    """`callbox events WORDS`, which Ctrl-C reaches: what a shell starts with & is deaf to it, children included."""
    environment = {**os.environ, "CALLBOX_REDIS_URL": redis_url}
    command = ["env", "--default-signal=INT", str(CALLBOX), "events", *words]
    return Popen(command, env=environment, cwd=ROOT, text=True, stdout=stdout, stderr=stderr)


@pytest.mark.integration
def test_the_command_shows_what_was_asked_for(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(*words: str) -> list[str]:
        ended = CliRunner().invoke(app, ["events", *words])
        assert ended.exit_code == 0, ended.stderr
        return ended.stdout.splitlines()

    monkeypatch.setenv("CALLBOX_REDIS_URL", server.url)
    assert said() == []
    hangs = {"program": "tts", "worker": "h:1", "why": "no beat for 12.0 s"}
    asyncio.run(note(server.url, waiting("call-a"), waiting("call-b"), ("stalled", hangs)))
    assert [line[25:40] for line in said()] == ["call-a waits fo", "call-b waits fo", "tts hangs: no b"]
    assert len(said("--call", "call-b", "--since", "10m")) == 1
    (shown,) = map(json.loads, said("--worker", "tts", "--json"))
    assert abs(datetime.fromisoformat(shown.pop("time")).timestamp() - time.time()) < 60
    assert shown.pop("id")
    assert shown == {"kind": "stalled", **hangs, "text": events.sentence(event("stalled", **hangs))}
    unclear = CliRunner().invoke(app, ["events", "--since", "yesterday"])
    assert (unclear.exit_code, "as in 10m" in unclear.stderr) == (1, True)
    server.kill()
    away = CliRunner().invoke(app, ["events"])
    assert (away.exit_code, "the registry does not answer" in away.stderr) == (1, True)


@pytest.mark.integration
def test_who_reads_may_have_seen_enough(server: RedisServer) -> None:
    asyncio.run(note(server.url, *(waiting(f"call-{i}") for i in range(3000))))
    with start(server.url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.integration
async def test_following_outlives_redis_and_ends_with_ctrl_c(server: RedisServer, tmp_path: Path) -> None:
    await note(server.url, waiting("before"))
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as to_out, err.open("w") as to_err:
        process = start(server.url, "--follow", stdout=to_out, stderr=to_err)
    number = 0

    async def sees_what_happens() -> bool:
        nonlocal number
        number += 1
        await note(server.url, waiting(f"call-{number}"))
        await asyncio.sleep(0.5)
        return "call-" in out.read_text()

    try:
        await until(sees_what_happens, 30)
        assert "before" not in out.read_text()
        server.kill()
        await until(lambda: "does not answer" in err.read_text(), 30)
        server.start()
        await until(lambda: "answers again" in err.read_text(), 30)
        await note(server.url, waiting("after"))
        await until(lambda: "after waits" in out.read_text(), 30)
        assert "lost its data" not in err.read_text()

        server.kill()
        await until(lambda: err.read_text().count("does not answer") == 2, 30)
        shutil.rmtree(tmp_path / "appendonlydir")
        server.start()
        await until(lambda: "it has lost its data" in err.read_text(), 30)
        await note(server.url, waiting("anew"))
        await until(lambda: "anew waits" in out.read_text(), 30)

        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, 60) == 0
        assert "Traceback" not in err.read_text()
    finally:
        process.kill()
        process.wait()
    told = [line[25:].split()[0] for line in out.read_text().splitlines()]
    assert len(told) == len(set(told)), "nothing is told twice"
