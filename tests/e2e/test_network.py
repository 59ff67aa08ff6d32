"""Who can reach the box, and whom it reaches: loopback by default, its callers when opened, nobody else ever."""

import asyncio
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from playwright.async_api import Page

from daemons import settings as settings_module
from daemons.audio import Pcm, level_dbfs, read_wav, wav_bytes
from ops.caller import Report, synthesize
from ops.private_box import CALLBOX, PrivateBox
from ops.robot import AUDIBLE_DBFS, dial
from tests.e2e.evidence import EVIDENCE
from tests.e2e.netns import BOX, BOX_V6, NAME_SERVER, Namespace, Tap, wired
from tests.e2e.test_page import (
    CHROMIUM,
    SAID_AGAIN_S,
    VOICE_RMS,
    browser_page,
    calls_held,
    fake_microphone,
    loudest_heard,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

QUESTION = "What is the capital of France?"
SMALL_LLM = "smollm2-135m"  # nobody judges these answers
AWAY_S = 15.0
MEDIA_PACKETS = 100  # two seconds of sound
LOOPBACK = ("127.0.0.1", "[::1]")
ANY = ("0.0.0.0", "::", "*")  # noqa: S104


class Listening(NamedTuple):
    """A socket that takes what others send; `address` is `*` for every one of both families."""

    pids: frozenset[int]
    kind: str
    address: str
    port: int


def beyond_loopback(box: PrivateBox, prefix: Sequence[str] = ()) -> set[Listening]:
    """Of everything that the box's processes listen on, what is not on loopback."""
    top = psutil.Process(int((box.var_dir / "run/supervisord.pid").read_text(encoding="ascii")))
    family = {process.pid for process in (top, *top.children(recursive=True))}
    said = subprocess.run([*prefix, "ss", "-Hltunp"], capture_output=True, text=True, timeout=20, check=True).stdout
    found = set()
    for line in said.splitlines():
        kind, _, _, _, local, _, *holders = line.split()
        address, _, port = local.rpartition(":")
        pids = frozenset(int(pid) for pid in re.findall(r"pid=(\d+)", " ".join(holders)))
        if pids & family and address not in LOOPBACK:
            found.add(Listening(pids & family, kind, address.strip("[]"), int(port)))
    return found


async def test_nothing_listens_beyond_loopback(box: PrivateBox) -> None:
    """WebRTC passes loopback over: during a call the agent holds a UDP port of each of the machine's addresses."""
    await until_only_loopback(box)
    agent = frozenset({box.pid("agent")})
    async with dial(box.settings.door_url) as robot:
        await robot.event(lambda event: event["event"] == "reply_heard", 20)
        in_call = beyond_loopback(box)
        print(f"\nbeyond loopback during a call: {sorted(one[1:] for one in in_call)}")
        assert all((one.pids, one.kind) == (agent, "udp") and one.address not in ANY for one in in_call)
        assert await silent(in_call)
    await until_only_loopback(box)


async def until_only_loopback(box: PrivateBox) -> None:
    """A call that has ended closes its sockets within seconds."""
    for _ in range(40):
        if not (found := beyond_loopback(box)):
            return
        await asyncio.sleep(0.25)
    raise AssertionError(f"beyond loopback: {found}")


async def silent(sockets: set[Listening]) -> bool:
    """Whether these answer nothing to who does not know the call's ICE password."""
    binding_request = bytes.fromhex("00010008 2112a442") + os.urandom(12) + bytes.fromhex("00060004") + b"ab:c"
    for one in sockets:
        with socket.socket(socket.AF_INET6 if ":" in one.address else socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.settimeout(0.5)
            await asyncio.to_thread(stranger.sendto, binding_request, (one.address, one.port))
            try:
                await asyncio.to_thread(stranger.recv, 2048)
            except TimeoutError:
                continue
            return False
    return True


class World(NamedTuple):
    box: PrivateBox
    home: Namespace
    away: Namespace
    tap: Tap

    def question(self) -> Pcm:
        return self.home.inside(lambda: asyncio.run(synthesize(self.box.settings, QUESTION))).pcm


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A box that is open to another network, and everything that it has sent there since before its start."""
    with (
        wired() as (home, away),
        Tap(away) as tap,
        PrivateBox(prefix=home.prefix, public_host=BOX, llm_model=SMALL_LLM) as box,
    ):
        yield World(box, home, away, tap)


def call_from(namespace: Namespace, pcm: Pcm, folder: Path, *words: str, **environment: str) -> tuple[Report, Pcm]:
    """`callbox call` as a person on another machine types it. Raises AssertionError with what it said."""
    asked, heard, report = folder / "question.wav", folder / "heard.wav", folder / "report.json"
    asked.write_bytes(wav_bytes(pcm))
    own = {**settings_module.environment_without_settings(), "CALLBOX_VAR_DIR": str(folder / "var"), **environment}
    done = namespace.run(CALLBOX, "call", "--wav", asked, "--record", heard, "--json", report, *words, env=own)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return Report.model_validate_json(report.read_text(encoding="utf-8")), read_wav(heard)


def assert_answered(report: Report, heard: Pcm) -> None:
    (turn,) = report.turns
    assert "capital of france" in turn.understood.lower()
    assert turn.answer
    assert turn.eot_to_first_audio_ms is not None
    assert level_dbfs(heard.samples) > AUDIBLE_DBFS


def test_a_robot_calls_over_tls_from_another_network(world: World, tmp_path: Path) -> None:
    print("\n" + world.home.run("ss", "-ltnu").stdout)
    settings = world.box.settings
    assert {one[1:] for one in beyond_loopback(world.box, world.home.prefix)} == {
        *(("tcp", address, settings.https_port) for address in ("0.0.0.0", "::")),  # noqa: S104
        ("tcp", "*", settings.livekit_tcp_port),
        *(("udp", address, settings.livekit_udp_port) for address in (BOX, BOX_V6)),
    }
    certificate = world.box.var_dir / "tls/cert.pem"
    report, heard = call_from(
        world.away, world.question(), tmp_path, "--url", settings.page_url, SSL_CERT_FILE=str(certificate)
    )
    assert_answered(report, heard)
    assert world.tap.sent("udp", settings.livekit_udp_port) > MEDIA_PACKETS


def test_an_unknown_certificate_is_refused_with_what_to_do(world: World, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"not trusted.*SSL_CERT_FILE"):
        call_from(world.away, world.question(), tmp_path, "--url", world.box.settings.page_url)


def test_a_caller_without_udp_is_heard_over_tcp(world: World, tmp_path: Path) -> None:
    certificate = world.box.var_dir / "tls/cert.pem"
    settings = world.box.settings
    before = world.tap.sent("tcp", settings.livekit_tcp_port)
    with world.away.without_udp():
        report, heard = call_from(
            world.away, world.question(), tmp_path, "--url", settings.page_url, SSL_CERT_FILE=str(certificate)
        )
    assert_answered(report, heard)
    assert world.tap.sent("tcp", settings.livekit_tcp_port) - before > MEDIA_PACKETS


def page_away(world: World, wav: Path, folder: Path) -> AbstractAsyncContextManager[Page]:
    """The box's page in a browser on the other network."""
    chromium = folder / "chromium"
    chromium.write_text(f'#!/bin/sh\nexec {" ".join(world.away.prefix)} {CHROMIUM} "$@"\n', encoding="ascii")
    chromium.chmod(0o755)
    return browser_page(world.box.settings.page_url, wav, chromium, "--ignore-certificate-errors")


async def test_a_person_calls_from_a_page_on_another_network(world: World, tmp_path: Path) -> None:
    wav = fake_microphone(await asyncio.to_thread(world.question), tmp_path)
    async with page_away(world, wav, tmp_path) as page:
        assert await page.evaluate("isSecureContext")
        await page.click("#call")
        await page.wait_for_selector('#state[data-state="speaking"]', timeout=30_000)
        assert await loudest_heard(page) > VOICE_RMS, "the greeting is heard"
        await page.wait_for_selector('.caption[data-side="caller"][data-final="true"]', timeout=30_000)
        assert "capital of france" in (await page.locator('.caption[data-side="caller"]').inner_text()).lower()
        await page.wait_for_selector('#state[data-state="speaking"]', timeout=30_000)
        assert await loudest_heard(page) > VOICE_RMS, "the answer is heard"
        await page.screenshot(path=EVIDENCE / "page-over-tls.png")
        await page.click("#hangup")
        await page.wait_for_selector('#state[data-state="ended"]', timeout=10_000)


async def test_a_caller_whose_network_is_gone_for_a_while_goes_on_with_the_call(world: World, tmp_path: Path) -> None:
    wav = fake_microphone(await asyncio.to_thread(world.question), tmp_path)
    async with page_away(world, wav, tmp_path) as page:
        await page.click("#call")
        await page.wait_for_selector('#state[data-state="listening"]', timeout=30_000)
        (call,) = calls_held(world.box)
        with world.home.cut_off(), world.away.cut_off():
            await asyncio.sleep(AWAY_S)
        said = '.caption[data-side="caller"][data-final="true"]'
        await page.wait_for_selector(said, timeout=60_000)
        await page.wait_for_selector('#state[data-state="speaking"]', timeout=30_000)
        assert await loudest_heard(page, SAID_AGAIN_S) > VOICE_RMS, "an answer is heard"
        assert calls_held(world.box) == {call}
        await page.click("#hangup")
        await page.wait_for_selector('#state[data-state="ended"]', timeout=10_000)


def test_nobody_but_the_callers_hears_of_the_box(world: World) -> None:
    """Start, the calls above and the stop; the last of this world, since it stops the box."""
    assert world.tap.sent("udp", world.box.settings.livekit_udp_port) > MEDIA_PACKETS, "no call went before"
    world.box.callbox("down")
    strays = world.tap.strays()
    world.home.run("getent", "hosts", "stun.example.org")  # the counterproof: an attempt is seen
    assert world.tap.lost() == 0
    print(f"\npackets out of the box: {sum(world.tap.packets.values())}")
    assert strays == {}
    assert {(packet.to, packet.to_port) for packet in world.tap.strays()} == {(NAME_SERVER, 53)}


def test_a_box_without_a_way_out_takes_calls(tmp_path: Path) -> None:
    """An address, but no route: start, call, hang up, stop; the interface counts what leaves by it."""
    with Namespace("alone") as alone:
        alone.ip("link", "add", "dark", "type", "veth", "peer", "name", "end")
        for interface in ("dark", "end"):
            alone.ip("link", "set", interface, "addrgenmode", "none", "up")
        alone.ip("addr", "add", f"{BOX}/24", "dev", "dark")
        with PrivateBox(prefix=alone.prefix, llm_model=SMALL_LLM) as box:
            question = alone.inside(lambda: asyncio.run(synthesize(box.settings, QUESTION))).pcm
            report, heard = call_from(alone, question, tmp_path, "--url", box.settings.door_url)
            assert_answered(report, heard)
        (dark,) = json.loads(alone.ip("-s", "-j", "link", "show", "dark"))
        assert dark["stats64"]["tx"]["packets"] == 0
