"""The programs of the box: what supervisord runs, in the order in which they start."""

import asyncio
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from daemons.errors import ConfigurationError, Unavailable, in_words
from daemons.settings import Settings
from ops import vllm
from ops.supervise import Supervisord

PROBE_TIMEOUT_S = 2.0
DAEMONS = ("stt", "llm", "tts", "agent", "token", "monitor")
LISTENER = "listener"
STOP_ORDER = (LISTENER, "token", "agent", "monitor", "stt", "llm", vllm.NAME, "tts", "livekit", "nginx", "redis")
LIVEKIT_STOP_WAIT_S = 5  # it waits for its rooms to empty, which nobody who stops it does
NGINX_SAYS = "callbox door"
HEALTH = "health of all daemons"
_HEALTH_MODULE = "daemons.health"


@dataclass(frozen=True)
class Program:
    name: str
    command: tuple[str, ...]
    ports: tuple[tuple[str, str, int], ...]  # (tcp or udp, setting, how far behind it)
    stop_wait_s: int = 10

    @property
    def is_daemon(self) -> bool:
        """Is it ours, with health at port+1?"""
        return self.name in DAEMONS


@dataclass(frozen=True)
class Readiness:
    """Whether a program can do its work, and why not; `facts` are its own words at /health."""

    ready: bool
    why_not: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def daemons(settings: Settings) -> tuple[str, ...]:
    """Those that this box runs."""
    return tuple(name for name in DAEMONS if name != "stt" or settings.stt_runs)


def programs(settings: Settings, livekit_bin: Path | str = "livekit-server") -> tuple[Program, ...]:
    etc = settings.var_dir / "etc"
    all_programs = []
    if not settings.redis_url:
        redis = (system_program("redis-server"), str(etc / "redis.conf"))
        all_programs.append(Program("redis", redis, (("tcp", "redis_port", 0),)))
    livekit_ports = [("tcp", "livekit_port", 0), ("udp", "livekit_udp_port", 0)]
    door_ports = [("tcp", "http_port", 0)]
    if settings.public_host:
        livekit_ports.append(("tcp", "livekit_tcp_port", 0))
        if not settings.tls_by_proxy:
            door_ports.append(("tcp", "https_port", 0))
    livekit = (str(livekit_bin), "--config", str(etc / "livekit.yaml"))
    all_programs.append(Program("livekit", livekit, tuple(livekit_ports), stop_wait_s=LIVEKIT_STOP_WAIT_S))
    if settings.vllm_runs:
        serve = (sys.executable, "-m", "ops.vllm", *vllm.command(settings, etc / "vllm.yaml"))
        all_programs.append(Program(vllm.NAME, serve, (("tcp", "vllm_port", 0),), stop_wait_s=vllm.STOP_WAIT_S))
    for name in daemons(settings):
        command = (sys.executable, "-m", f"daemons.{name}")
        ports = tuple(("tcp", f"{name}_port", offset) for offset in (0, 1))
        all_programs.append(Program(name, command, ports, stop_wait_s=round(settings.drain_s) + 5))
    nginx = (sys.executable, "-m", "ops.nginx", *nginx_command(settings))
    all_programs.append(Program("nginx", nginx, tuple(door_ports)))
    all_programs.append(Program(LISTENER, (sys.executable, "-m", "daemons.monitor.listener", *daemons(settings)), ()))
    return tuple(all_programs)


def processes_of(settings: Settings) -> dict[str, list[psutil.Process]]:
    """The processes of a box that is up, by program; the children that answer for its daemons are HEALTH, all together.

    Raises Unavailable when its supervisord does not answer.
    """
    found: dict[str, list[psutil.Process]] = {HEALTH: []}
    for state in Supervisord(settings).states():
        if not state.pid:
            continue
        process = psutil.Process(state.pid)
        children = process.children(recursive=True)
        health = [child for child in children if _HEALTH_MODULE in child.cmdline()]
        found[state.name] = [process, *(child for child in children if child not in health)]
        found[HEALTH] += health
    return found


def nginx_command(settings: Settings) -> tuple[str, ...]:
    return (system_program("nginx"), "-c", str(settings.var_dir / "etc/nginx.conf"))


async def probe(settings: Settings, program: Program) -> Readiness:
    """Ask the program itself; at most PROBE_TIMEOUT_S."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            if program.name == "redis":
                return await _probe_redis(settings.redis_port)
            if program.name == LISTENER:
                return await asyncio.to_thread(_probe_listener, settings)
            async with aiohttp.ClientSession() as http:
                if program.name == "livekit":
                    return await _expect(http, f"http://127.0.0.1:{settings.livekit_port}/", "OK")
                if program.name == "nginx":
                    said = await _expect(http, f"{settings.door_url}/healthz", NGINX_SAYS)
                    return said if not said.ready else await _expect(http, f"{settings.door_url}/", "")
                if program.name == vllm.NAME:
                    return await _probe_vllm(http, settings)
                port = getattr(settings, f"{program.name}_port")
                return await _probe_daemon(http, program.name, port + 1)
    except TimeoutError:
        return Readiness(False, f"no answer within {PROBE_TIMEOUT_S:g} s")
    except (aiohttp.ClientConnectorError, ConnectionRefusedError):
        return Readiness(False, "nobody listens")
    except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
        return Readiness(False, in_words(error))


async def probe_all(settings: Settings, chosen: tuple[Program, ...]) -> dict[str, Readiness]:
    answers = await asyncio.gather(*(probe(settings, program) for program in chosen))
    return {program.name: answer for program, answer in zip(chosen, answers, strict=True)}


async def _probe_redis(port: int) -> Readiness:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"PING\r\n")
        said = (await reader.readline()).decode(errors="replace").strip()
    finally:
        writer.close()
    return Readiness(said == "+PONG", "" if said == "+PONG" else f"it says {said!r}")


def _probe_listener(settings: Settings) -> Readiness:
    """It has no door of its own: supervisord, which feeds it, says whether it runs."""
    try:
        state = next((state for state in Supervisord(settings).states() if state.name == LISTENER), None)
    except Unavailable:
        return Readiness(False, "supervisord is not running")
    if state is None:
        return Readiness(False, "supervisord does not know it")
    return Readiness(state.state == "RUNNING", "" if state.state == "RUNNING" else state.state.lower())


async def _expect(http: aiohttp.ClientSession, url: str, body: str) -> Readiness:
    async with http.get(url) as response:
        said = await response.text()
    if response.status != 200:
        return Readiness(False, f"{url} answers {response.status}")
    if body and said != body:
        return Readiness(False, f"{url} says {said[:60]!r}: another program has this port")
    return Readiness(True)


async def _probe_vllm(http: aiohttp.ClientSession, settings: Settings) -> Readiness:
    """Its engine is well, and it is this box's: it takes its key and lists its model."""
    said = await _expect(http, f"http://127.0.0.1:{settings.vllm_port}/health", "")
    if not said.ready:
        return said
    key = {"Authorization": f"Bearer {settings.vllm_api_key.get_secret_value()}"}
    async with http.get(f"{settings.vllm_url}/models", headers=key) as response:
        if response.status != 200:
            return Readiness(False, f"{settings.vllm_url}/models answers {response.status}")
        listed = [each["id"] for each in json.loads(await response.text())["data"]]
    name = vllm.served_name(settings)
    if name not in listed:
        return Readiness(False, f"port {settings.vllm_port} serves {', '.join(listed)}, and not {name}")
    return Readiness(True, facts={"model": name})


async def _probe_daemon(http: aiohttp.ClientSession, name: str, port: int) -> Readiness:
    async with http.get(f"http://127.0.0.1:{port}/readyz") as response:
        ready, said = response.status == 200, (await response.text()).strip()
    async with http.get(f"http://127.0.0.1:{port}/health") as response:
        facts = json.loads(await response.text())
    if not isinstance(facts, dict) or facts.get("role") != name:
        return Readiness(False, f"port {port} answers for something else than {name}")
    return Readiness(ready, "" if ready else said, facts)


def system_program(name: str) -> str:
    """Where a program lies, also one that only root's PATH shows. Raises ConfigurationError."""
    path = os.pathsep.join((os.defpath, "/usr/local/sbin", "/usr/sbin", "/sbin"))
    found = shutil.which(name) or shutil.which(name, path=path)
    if found is None:
        raise ConfigurationError(f"{name} is not installed; run `bash post_start.sh` as root, or have it installed")
    return found
