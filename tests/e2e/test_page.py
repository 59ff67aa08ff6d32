"""The page as a person uses it: headless Chromium presses Call and speaks through a fake microphone."""

import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.async_api import Page, async_playwright

from daemons.audio import Pcm, wav_bytes
from daemons.settings import Settings
from ops.caller import synthesize
from ops.private_box import PrivateBox
from ops.robot import dial
from tests.e2e.evidence import EVIDENCE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CHROMIUM = "/usr/bin/chromium"
MICROPHONE_HZ = 48_000
GREETING_S = 6.0
PAUSE_S = 20.0
SAID_AGAIN_S = 40.0  # what is left of one answer may be short; until the next

VOICE_RMS = 0.01
# The loudest RMS of what the page plays, until a voice is heard, for some seconds at most
HEARD_JS = """async ([within_s, voice]) => {
  const context = new AudioContext()
  const meter = context.createAnalyser()
  context.createMediaStreamSource(document.querySelector('#voice').srcObject).connect(meter)
  const block = new Float32Array(meter.fftSize)
  let loudest = 0
  for (let at = 0; at < within_s * 20 && loudest < voice; at++) {
    await new Promise(resolve => setTimeout(resolve, 50))
    meter.getFloatTimeDomainData(block)
    loudest = Math.max(loudest, Math.sqrt(block.reduce((sum, x) => sum + x * x, 0) / block.length))
  }
  await context.close()
  return loudest
}"""


async def loudest_heard(page: Page, within_s: float = 2) -> float:
    return float(await page.evaluate(HEARD_JS, [within_s, VOICE_RMS]))


async def microphone(settings: Settings, words: str, folder: Path) -> Path:
    return fake_microphone((await synthesize(settings, words)).pcm, folder)


def fake_microphone(pcm: Pcm, folder: Path) -> Path:
    """What it says over and over: silence while the agent greets, the words, silence."""
    spoken = pcm.resampled(MICROPHONE_HZ).samples
    quiet = [np.zeros(round(seconds * MICROPHONE_HZ), np.int16) for seconds in (GREETING_S, PAUSE_S)]
    path = folder / "microphone.wav"
    path.write_bytes(wav_bytes(Pcm(np.concatenate([quiet[0], spoken, quiet[1]]), MICROPHONE_HZ)))
    return path


@asynccontextmanager
async def browser_page(url: str, wav: Path, chromium: str | Path = CHROMIUM, *arguments: str) -> AsyncIterator[Page]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--use-fake-ui-for-media-stream",
                "--use-fake-device-for-media-stream",
                f"--use-file-for-fake-audio-capture={wav}",
                "--autoplay-policy=no-user-gesture-required",
                *arguments,
            ],
        )
        try:
            context = await browser.new_context(permissions=["microphone"], viewport={"width": 900, "height": 900})
            page = await context.new_page()
            await page.goto(url)
            yield page
        finally:
            await browser.close()


async def test_a_person_calls_from_the_page_and_hears_an_answer(box: PrivateBox, tmp_path: Path) -> None:
    wav = await microphone(box.settings, "What is the capital of France?", tmp_path)
    complaints: list[str] = []
    async with browser_page(box.settings.door_url, wav) as page:
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.click("#call")
        await page.wait_for_selector('#state[data-state="speaking"]', timeout=30_000)
        greeting = await loudest_heard(page)
        assert greeting > VOICE_RMS, "the greeting is heard"
        await page.wait_for_selector('.caption[data-side="caller"]', timeout=30_000)
        await page.wait_for_selector('#state[data-state="speaking"]', timeout=30_000)
        answer = await loudest_heard(page)
        assert answer > VOICE_RMS, "the answer is heard"
        await page.wait_for_selector('.caption[data-side="agent"][data-final="true"] >> text=Paris', timeout=30_000)
        captions = await page.locator(".caption").all_inner_texts()
        assert any("capital of france" in caption.lower() for caption in captions), captions
        await page.wait_for_selector("#timeline li[data-ms]", timeout=10_000)
        await page.screenshot(path=EVIDENCE / "page-in-call.png")
        assert not complaints
        await page.click("#hangup")
        await page.wait_for_selector('#state[data-state="ended"]', timeout=10_000)
        await page.screenshot(path=EVIDENCE / "page-ended.png")


async def test_the_page_says_what_to_do_when_nobody_can_answer(box: PrivateBox, tmp_path: Path) -> None:
    """No TTS worker: the caller is told before a room exists, and the next call works."""
    wav = await microphone(box.settings, "Hello?", tmp_path)
    box.supervisorctl("stop", "tts")
    try:
        async with browser_page(box.settings.door_url, wav) as page:
            await page.click("#call")
            await page.wait_for_selector("#problem:visible", timeout=20_000)
            assert "tts" in await page.locator("#problem").inner_text()
            await page.screenshot(path=EVIDENCE / "page-unavailable.png")
    finally:
        box.supervisorctl("start", "tts")
        box.wait_ready("tts", other_than=0)


async def test_a_media_server_that_dies_in_mid_call_is_back_before_the_caller_hangs_up(
    box: PrivateBox, tmp_path: Path
) -> None:
    wav = await microphone(box.settings, "What is the capital of France?", tmp_path)
    async with browser_page(box.settings.door_url, wav) as page:
        await page.click("#call")
        await page.wait_for_selector('#state[data-state="listening"]', timeout=30_000)
        os.kill(box.pid("livekit"), signal.SIGKILL)
        await page.wait_for_selector('#state[data-state="reconnecting"]', timeout=10_000)
        await page.screenshot(path=EVIDENCE / "page-reconnecting.png")
        began_s = time.monotonic()
        await page.wait_for_selector('#state:not([data-state="reconnecting"])', timeout=30_000)
        print(f"\nback after {time.monotonic() - began_s:.1f} s")
        await page.wait_for_selector('.caption[data-side="agent"] >> text=Paris', timeout=60_000)
        await page.wait_for_selector('#state[data-state="speaking"]', timeout=30_000)
        assert await loudest_heard(page, SAID_AGAIN_S) > VOICE_RMS, "the agent is heard again"
        await page.click("#hangup")
        await page.wait_for_selector('#state[data-state="ended"]', timeout=10_000)


def calls_held(box: PrivateBox) -> set[str]:
    return {lease["call"] for lease in box.status()["leases"]}


async def test_a_reload_comes_back_to_the_same_call(box: PrivateBox, tmp_path: Path) -> None:
    wav = await microphone(box.settings, "What is the capital of France?", tmp_path)
    async with browser_page(box.settings.door_url, wav) as page:
        await page.click("#call")
        await page.wait_for_selector('#state[data-state="listening"]', timeout=30_000)
        (before,) = calls_held(box)
        await page.reload()
        await page.wait_for_selector('.caption[data-side="agent"] >> text=Paris', timeout=60_000)
        assert calls_held(box) == {before}
        await page.click("#hangup")
        await page.wait_for_selector('#state[data-state="ended"]', timeout=10_000)


async def test_a_caller_over_capacity_sees_the_queue_and_is_put_through(box: PrivateBox, tmp_path: Path) -> None:
    wav = await microphone(box.settings, "Hello?", tmp_path)
    async with (
        dial(box.settings.door_url),
        dial(box.settings.door_url) as second,
        browser_page(box.settings.door_url, wav) as page,
    ):
        await page.click("#call")
        await page.wait_for_selector('#state[data-state="queued"]', timeout=20_000)
        assert "next" in await page.locator("#queue").inner_text()
        await page.screenshot(path=EVIDENCE / "page-queued.png")
        await second.leave()
        await page.wait_for_selector('#state[data-state="speaking"]', timeout=40_000)
        await page.click("#hangup")
