import asyncio
import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from playwright.async_api import async_playwright

from daemons.audio import TTS_RATE_HZ, Samples, read_wav
from daemons.tts.encode import CONTENT_TYPES, FORMATS, LENGTH_AHEAD, AudioFormat, encoded, stream_encoder
from tests.worker_process import WorkerProcess

CHROMIUM = "/usr/bin/chromium"
COMPRESSED: tuple[AudioFormat, ...] = ("mp3", "opus", "flac")
WAV: AudioFormat = "wav"
TEXT = "Hello there. This is the second sentence, and it is a little longer."
LONG = "This is one of very many sentences that nobody will ever hear. " * 60
SLACK_S = 0.15  # an encoder's own frames and its delay

# The samples that the browser's own decoders find in a file, at 24 kHz
DECODE_JS = """async file => {
  const bytes = Uint8Array.from(atob(file), character => character.charCodeAt(0))
  const decoded = await new OfflineAudioContext(1, 1, 24000).decodeAudioData(bytes.buffer)
  return Array.from(decoded.getChannelData(0))
}"""


@pytest.fixture
async def session(tts: WorkerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(tts.url, timeout=aiohttp.ClientTimeout(60)) as session:
        yield session


async def spoken(session: aiohttp.ClientSession, audio_format: AudioFormat, **body: object) -> bytes:
    asked = {"input": TEXT, "response_format": audio_format, **body}
    async with session.post("/v1/audio/speech", json=asked) as response:
        assert response.status == 200
        assert response.content_type == CONTENT_TYPES[audio_format]
        return await response.read()


async def uncompressed(session: aiohttp.ClientSession, *, streamed: bool) -> Samples:
    """What is streamed is cut into phrases of its own, so that its first sound comes early."""
    if streamed:
        return np.frombuffer(await spoken(session, "pcm"), "<i2")
    return read_wav(await spoken(session, "wav")).samples


def speechlike(seconds: float) -> Samples:
    at_s = np.arange(round(seconds * TTS_RATE_HZ)) / TTS_RATE_HZ
    sound = 8000 * np.sin(2 * np.pi * 220 * at_s) * np.sin(2 * np.pi * 3 * at_s) ** 2
    samples: Samples = np.rint(sound).astype(np.int16)
    return samples


def likeness(heard: npt.NDArray[Any], said: npt.NDArray[Any]) -> float:
    """The highest correlation of the two, shifted by up to SLACK_S."""
    heard, said = heard.astype(np.float64), said.astype(np.float64)
    spectrum = np.fft.rfft(heard, 2 * len(said)) * np.conj(np.fft.rfft(said, 2 * len(said)))
    shifted = np.fft.irfft(spectrum)[: round(SLACK_S * TTS_RATE_HZ)]
    return float(shifted.max() / np.sqrt((heard**2).sum() * (said**2).sum()))


@pytest.mark.parametrize("audio_format", COMPRESSED)
async def test_a_file_decodes_to_what_was_put_into_it(audio_format: AudioFormat) -> None:
    samples = speechlike(3.3)
    heard, rate_hz = soundfile.read(io.BytesIO(await encoded(audio_format, samples)), dtype="int16")
    assert rate_hz == TTS_RATE_HZ
    assert abs(len(heard) - len(samples)) < SLACK_S * TTS_RATE_HZ
    assert likeness(heard, samples) > 0.99
    if audio_format == "flac":
        assert np.array_equal(heard, samples)


@pytest.mark.parametrize("audio_format", FORMATS)
async def test_a_stream_gives_its_bytes_as_they_are_made(audio_format: AudioFormat) -> None:
    encoder, samples = stream_encoder(audio_format), speechlike(6)
    pieces = [await encoder.write(samples[at : at + TTS_RATE_HZ]) for at in range(0, len(samples), TTS_RATE_HZ)]
    pieces.append(await encoder.end())
    assert len(b"".join(pieces[:3])) > len(b"".join(pieces)) / 4
    assert len(pieces[-1]) < len(b"".join(pieces)) / 3


@pytest.mark.integration
@pytest.mark.parametrize("audio_format", COMPRESSED)
async def test_compressed_speech_is_the_uncompressed(session: aiohttp.ClientSession, audio_format: AudioFormat) -> None:
    said = await uncompressed(session, streamed=audio_format not in LENGTH_AHEAD)
    file = await spoken(session, audio_format)
    heard, rate_hz = soundfile.read(io.BytesIO(file), dtype="int16")
    assert rate_hz == TTS_RATE_HZ
    assert abs(len(heard) - len(said)) < SLACK_S * TTS_RATE_HZ
    assert likeness(heard, said) > 0.95
    assert len(file) < 1.5 * len(said)


@pytest.mark.integration
async def test_wav_says_its_length_unless_it_is_streamed(session: aiohttp.ClientSession) -> None:
    whole, streamed = await spoken(session, "wav"), await spoken(session, "wav", stream=True)
    assert 2 * len(read_wav(whole).samples) == len(whole) - 44
    assert streamed[40:44] == b"\xff" * 4
    assert streamed[44:] == await spoken(session, "pcm")


@pytest.mark.integration
@pytest.mark.parametrize("audio_format", FORMATS)
async def test_a_stream_is_sent_while_it_is_made_and_its_end_ends_the_work(
    session: aiohttp.ClientSession, tts: WorkerProcess, audio_format: str
) -> None:
    made_s = await asyncio.to_thread(tts.metric, "callbox_audio_seconds_total")
    body = {"input": LONG, "response_format": audio_format, "stream": True}
    async with session.post("/v1/audio/speech", json=body) as response:
        assert response.status == 200
        await response.content.readexactly(1000)
        response.close()
    assert await asyncio.to_thread(tts.becomes_idle)
    await asyncio.sleep(1.1)  # figures are published once a second
    assert await asyncio.to_thread(tts.metric, "callbox_audio_seconds_total") - made_s < 120


@pytest.mark.integration
@pytest.mark.parametrize("name", ["aac", "ogg", "", "MP3"])
async def test_a_format_that_cannot_be_had_is_refused_by_name(session: aiohttp.ClientSession, name: str) -> None:
    async with session.post("/v1/audio/speech", json={"input": TEXT, "response_format": name}) as response:
        assert response.status == 400
        message = (await response.json())["error"]["message"]
    assert f"{name!r} cannot be made here; mp3, opus, flac, wav, pcm can" in message


@pytest.mark.integration
@pytest.mark.e2e
async def test_a_browser_plays_every_format_streamed_or_not(session: aiohttp.ClientSession) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        try:
            page = await browser.new_page()
            for audio_format in (*COMPRESSED, WAV):
                for stream in (False, True):
                    said = await uncompressed(session, streamed=stream or audio_format not in LENGTH_AHEAD)
                    file = await spoken(session, audio_format, stream=stream)
                    heard = np.array(await page.evaluate(DECODE_JS, base64.b64encode(file).decode()))
                    which = f"{audio_format}, stream={stream}"
                    assert abs(len(heard) - len(said)) < SLACK_S * TTS_RATE_HZ, which
                    assert likeness(heard, said) > 0.95, which
        finally:
            await browser.close()
