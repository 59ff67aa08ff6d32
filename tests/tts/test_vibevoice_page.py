"""VibeVoice's own page, unchanged, against this worker: what a browser plays and saves is what the worker made."""

import asyncio
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from hashlib import sha256
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from playwright.async_api import Page, async_playwright

from daemons.audio import TTS_RATE_HZ, Samples, read_wav
from daemons.settings import Settings
from ops.free_ports import free_port
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.integration, pytest.mark.e2e]

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
]
COMMIT = "e73d1e17c3754f046352014856a922f8208fb5d3"
SOURCE = f"https://raw.githubusercontent.com/microsoft/VibeVoice/{COMMIT}/demo/web/index.html"
SHA256 = "e313f1e7ca49c684910b71fd233f4b0192fa19905b06ece15a7f9be4a064f6c3"
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr warn; events {{}}
http {{
    access_log off; types {{ text/html html; }}
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    proxy_http_version 1.1; proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade;
    server {{
        listen 127.0.0.1:{port}; root {www};
        location = /config {{ proxy_pass {worker}; }}
        location = /stream {{ proxy_pass {worker}; }}
    }}
}}
"""
TEXT = "Hello there. This is the second sentence, and it is a little longer."
LONG = "This is one of very many sentences that nobody will ever hear. " * 60

# Keeps every block that the page hands to the loudspeaker
LISTEN_JS = """
window.played = []
const make = AudioContext.prototype.createScriptProcessor
AudioContext.prototype.createScriptProcessor = function (...how) {
  const node = make.apply(this, how)
  const { set } = Object.getOwnPropertyDescriptor(ScriptProcessorNode.prototype, 'onaudioprocess')
  Object.defineProperty(node, 'onaudioprocess', { set: fill => set.call(node, fill && (event => {
    fill(event)
    window.played.push(...event.outputBuffer.getChannelData(0).map(sample => sample * 32768))
  })) })
  return node
}
"""


@pytest.fixture(scope="module")
def vibevoice_page() -> bytes:
    """From the user's cache, or fetched into it."""
    kept = Settings().cache_dir / "vibevoice/index.html"
    if not kept.exists():
        try:
            with urllib.request.urlopen(SOURCE, timeout=10) as answer:
                page = answer.read()
        except (urllib.error.URLError, OSError) as error:
            pytest.skip(f"VibeVoice's page cannot be fetched from {SOURCE} ({error}) and does not lie at {kept}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(page)
    page = kept.read_bytes()
    assert sha256(page).hexdigest() == SHA256, f"{kept} is not VibeVoice's page as of {COMMIT[:7]}"
    return page


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def door(tts: WorkerProcess, vibevoice_page: bytes, tmp_path: Path) -> Iterator[str]:
    """An nginx that serves the page, and hands its two requests to the worker."""
    port, www = free_port(), tmp_path / "www"
    www.mkdir()
    (www / "index.html").write_bytes(vibevoice_page)
    (www / "favicon.ico").write_bytes(b"")
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, www=www, port=port, worker=tts.url))
    with subprocess.Popen(["nginx", "-c", str(config)]) as nginx:
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 10
            while not is_open(port):
                assert nginx.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield url
        finally:
            nginx.terminate()


@pytest.fixture
async def page(door: str) -> AsyncIterator[Page]:
    """VibeVoice's page, its voices loaded. Fails at the end of the test when the browser complained of anything."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        try:
            page = await browser.new_page()
            page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            await page.add_init_script(LISTEN_JS)
            await page.goto(door)
            await page.wait_for_selector("#voiceSelect:enabled")
            yield page
        finally:
            await browser.close()
    assert complaints == []


async def log_has(page: Page, line: str) -> None:
    await page.wait_for_function(
        "line => document.querySelector('#logOutput').textContent.includes(line)", arg=line, timeout=30_000
    )


def from_first_sound(samples: Samples) -> Samples:
    return samples[np.flatnonzero(samples)[0] :]


async def test_the_page_plays_and_saves_what_the_worker_made(page: Page, tts: WorkerProcess) -> None:
    async with aiohttp.ClientSession() as http, http.post(f"{tts.url}/tts/stream", json={"text": TEXT}) as response:
        made = np.frombuffer(await response.read(), "<i2")
    assert await page.input_value("#voiceSelect") == "heart"
    await page.fill("#prompt", TEXT)
    await page.click("#playback")
    await log_has(page, "[Frontend] Browser started to play audio")
    await log_has(page, "[Backend]  Backend finished")
    told = await page.inner_text("#logOutput")
    for line in ("[Backend]  Received request", "[Backend]  Sent first audio chunk", "Received first audio chunk"):
        assert line in told
    assert await page.inner_text("#modelGenerated") == f"{len(made) / TTS_RATE_HZ:.2f}"

    await log_has(page, "[Frontend] Playback stopped")  # by itself, at the end of the audio
    played = from_first_sound(np.rint(await page.evaluate("window.played")).astype(np.int16))
    assert np.array_equal(played[: len(from_first_sound(made))], from_first_sound(made))
    async with page.expect_download() as saving:
        await page.click("#saveAudio")
    saved = await asyncio.to_thread(Path(await (await saving.value).path()).read_bytes)
    assert np.array_equal(read_wav(saved).samples, made)
    assert "[Error]" not in await page.inner_text("#logOutput")


async def test_the_page_s_stop_button_stops_the_worker(page: Page, tts: WorkerProcess) -> None:
    await page.fill("#prompt", LONG)
    await page.click("#playback")
    await log_has(page, "[Backend]  Sent first audio chunk")
    await page.click("#playback")
    await log_has(page, "[Frontend] Playback stopped")
    assert await asyncio.to_thread(tts.becomes_idle)
