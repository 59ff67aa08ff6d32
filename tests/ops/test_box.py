"""The box's own programs under a real supervisord: up, changed, killed, down."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest
from aiohttp import web

from daemons.errors import ConfigurationError
from daemons.settings import Settings
from ops import box, livekit
from ops.free_ports import free_port
from ops.programs import Program, programs
from ops.render import render
from ops.run import StepFailed
from ops.supervise import Supervisord
from tests.ops.conftest import MakeSettings

pytestmark = pytest.mark.integration
WAIT_S = 15.0


@pytest.fixture
def livekit_bin() -> Path:
    found = livekit.find(Settings())
    if found is None:
        pytest.skip("livekit-server is not installed; `callbox up` does it")
    return found


@pytest.fixture
def page(settings: Settings) -> None:
    assert settings.www_dir is not None
    (settings.www_dir / "assets").mkdir(parents=True)
    (settings.www_dir / "index.html").write_text("<title>Callbox</title>")
    (settings.www_dir / "assets/app.js").write_text("1")
    (settings.www_dir / ".sources").write_text("secret")


@pytest.fixture
def raise_box(make_settings: MakeSettings, livekit_bin: Path, page: None) -> Iterator[Callable[..., Settings]]:
    """Render and start what needs no model, as `up` does."""
    last: list[Settings] = []

    def raise_(only: tuple[str, ...] = ("redis", "livekit", "nginx"), **changes: object) -> Settings:
        settings = make_settings(**changes)
        last.append(settings)
        render(settings, livekit_bin)
        keep_programs(settings, only)
        box.start(settings, some(settings, only))
        return settings

    try:
        yield raise_
    finally:
        for settings in last[-1:]:
            box.down(settings)


def some(settings: Settings, names: tuple[str, ...]) -> tuple[Program, ...]:
    return tuple(program for program in programs(settings) if program.name in names)


def keep_programs(settings: Settings, names: tuple[str, ...]) -> None:
    conf = settings.var_dir / "etc/supervisord.conf"
    head, *sections = re.split(r"(?m)^(?=\[(?:program|eventlistener):)", conf.read_text())
    conf.write_text(head + "".join(each for each in sections if each.partition(":")[2].startswith(names)))


def pids(settings: Settings) -> dict[str, int]:
    return {state.name: state.pid for state in Supervisord(settings).states()}


def test_a_second_start_touches_nothing_and_a_changed_setting_only_its_programs(
    raise_box: Callable[..., Settings],
) -> None:
    settings = raise_box()
    first = pids(settings)
    raise_box()
    assert pids(settings) == first
    raise_box(access_key="a-new-access-key")
    after = pids(settings)
    assert {name for name in first if first[name] != after[name]} == {"nginx"}


def test_a_killed_program_comes_back(raise_box: Callable[..., Settings]) -> None:
    settings = raise_box()
    for how in (signal.SIGTERM, signal.SIGKILL):
        for name, pid in pids(settings).items():
            os.kill(pid, how)
            deadline = time.monotonic() + WAIT_S
            while pids(settings)[name] in {0, pid}:
                assert time.monotonic() < deadline, f"{name} stays away after {how.name}"
                time.sleep(0.05)
    box.wait_ready(settings, Supervisord(settings), some(settings, tuple(pids(settings))))


def test_a_killed_supervisord_leaves_nothing_in_the_way(raise_box: Callable[..., Settings]) -> None:
    settings = raise_box()
    orphans = Supervisord(settings).family()
    pid = Supervisord(settings).pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    raise_box()
    assert not orphans & Supervisord(settings).family()
    assert [pid for pid in orphans if psutil.pid_exists(pid)] == []


def test_down_leaves_nothing(raise_box: Callable[..., Settings]) -> None:
    settings = raise_box()
    family = Supervisord(settings).family()
    assert len(family) >= 4
    box.down(settings)
    assert [pid for pid in family if psutil.pid_exists(pid)] == []
    box.down(settings)


def test_restart_restarts_what_is_named(raise_box: Callable[..., Settings]) -> None:
    settings = raise_box()
    first = pids(settings)
    box.restart(settings, ["nginx"])
    after = pids(settings)
    assert {name for name in first if first[name] != after[name]} == {"nginx"}
    with pytest.raises(ConfigurationError, match="nonesuch"):
        box.restart(settings, ["nonesuch"])


def test_a_taken_port_stops_the_start_with_its_holder(
    raise_box: Callable[..., Settings], settings: Settings, livekit_bin: Path
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", settings.http_port))
        held.listen()
        with pytest.raises(ConfigurationError, match=rf"nginx needs.*process {os.getpid()} .*CALLBOX_HTTP_PORT"):
            raise_box()
    assert Supervisord(settings).pid() is None


def test_a_program_that_gives_up_is_shown_with_its_last_words(raise_box: Callable[..., Settings]) -> None:
    with pytest.raises(StepFailed, match=r"(?s)stt is EXITED.*callbox models pull nonesuch.*stt\.log"):
        raise_box(only=("stt",), stt_model="nonesuch")


def test_a_program_that_dies_at_each_load_is_not_waited_for(
    raise_box: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vllm and nvidia-smi are scripts here, in the place of what needs a card."""
    for name, script in (
        ("vllm", "sleep 1.5; echo no memory for the cache; exit 1"),
        ("nvidia-smi", "echo 0, L4, 23034, 0"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    began = time.monotonic()
    given = {"llm_engine": "openai", "vllm_devices": "0", "vllm_model": str(tmp_path), "vllm_bin": tmp_path / "vllm"}
    with pytest.raises(StepFailed, match=r"(?s)vllm is \w+: .*no memory for the cache.*vllm\.log"):
        raise_box(only=("vllm",), vllm_port=free_port(), **given)
    assert time.monotonic() - began < WAIT_S


def test_a_box_too_large_for_its_card_is_not_started(
    raise_box: Callable[..., Settings], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nvidia-smi stands for a card of which others hold most."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 0, L4, 23034, 20000\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    given = {"llm_engine": "openai", "vllm_devices": "0", "vllm_model": str(tmp_path), "vllm_bin": "/bin/true"}
    with pytest.raises(ConfigurationError, match=r"vllm 13820 MiB, others 20000 MiB.*end what others run there"):
        raise_box(only=("vllm",), **given)
    assert Supervisord(settings).pid() is None


async def test_the_door_serves_the_page_with_its_headers(raise_box: Callable[..., Settings]) -> None:
    settings = await asyncio.to_thread(raise_box)
    async with aiohttp.ClientSession(settings.door_url) as http:
        async with http.get("/") as response:
            assert await response.text() == "<title>Callbox</title>"
            assert "default-src 'self'" in response.headers["Content-Security-Policy"]
            assert response.headers["Cache-Control"] == "no-cache"
        async with http.get("/assets/app.js") as response:
            assert "immutable" in response.headers["Cache-Control"]
            assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        async with http.get("/.sources") as response:
            assert response.status == 404
        async with http.get("/rtc/validate") as response:
            assert (response.status, "permission" in await response.text()) == (401, True)


async def test_the_workers_doors_open_to_the_key_alone(raise_box: Callable[..., Settings]) -> None:
    settings = await asyncio.to_thread(raise_box, access_key="Let.me-in~2026")
    bad = ("", "Bearer ", "Bearer let.me-in~2026", "Bearer LetXme-in~2026", "Basic Let.me-in~2026")
    async with aiohttp.ClientSession(settings.door_url) as http:
        for path in ("/tts/stream", "/stream", "/config", "/v1/models", "/v1/audio/speech", "/v1/chat/completions"):
            for key in bad:
                async with http.get(path, headers={"Authorization": key}) as response:
                    assert response.status == 401, (path, key)
            async with http.get(path, headers={"Authorization": "Bearer Let.me-in~2026"}) as response:
                assert response.status == 502, path  # let through, to a worker that does not run here


async def test_without_a_key_there_are_no_workers_doors(raise_box: Callable[..., Settings]) -> None:
    settings = await asyncio.to_thread(raise_box)
    async with aiohttp.ClientSession(settings.door_url) as http:
        for path in ("/tts/stream", "/stream", "/config", "/v1/models"):
            async with http.get(path, headers={"Authorization": "Bearer "}) as response:
                assert response.status == 404, path


async def test_lease_headers_and_addresses_from_outside_do_not_pass(raise_box: Callable[..., Settings]) -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append({str(name): value for name, value in request.headers.items()})
        return web.Response(text="token")

    settings = await asyncio.to_thread(raise_box)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", settings.token_port).start()
    forged = dict.fromkeys(("X-Call-Id", "X-Slot", "X-Fence", "X-Boot", "X-Forwarded-For"), "forged")
    try:
        async with aiohttp.ClientSession(settings.door_url) as http:
            for path in ("/api/calls", "/api/calls/c1/events"):
                async with http.get(path, headers=forged | {"X-Forwarded-Proto": "https"}) as response:
                    assert await response.text() == "token"
    finally:
        await runner.cleanup()
    for headers in seen:
        assert "forged" not in headers.values()
        assert headers["X-Forwarded-Proto"] == "https"
    assert len(seen) == 2


def test_opened_the_box_speaks_tls(raise_box: Callable[..., Settings], settings: Settings) -> None:
    raise_box(public_host="127.0.0.1")
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    url = f"https://127.0.0.1:{settings.https_port}/"
    said = subprocess.run(
        (curl, "-sS", "--cacert", settings.var_dir / "tls/cert.pem", url), capture_output=True, text=True, check=True
    )
    assert said.stdout == "<title>Callbox</title>"
