"""The `openai` package, which people's programs already use, drives the transcription door."""

import asyncio
import io
from collections.abc import AsyncIterator

import numpy as np
import openai
import pytest
import soundfile
from openai import AsyncOpenAI

from daemons.audio import STT_RATE_HZ, FloatSamples, Pcm, to_int16, wav_bytes
from tests.speech_samples import librivox, needs_librivox, word_error_rate
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.integration, needs_librivox]


@pytest.fixture
async def client(stt: WorkerProcess) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{stt.url}/v1", api_key="none is needed", max_retries=0, timeout=60) as client:
        yield client


def wav(samples: FloatSamples) -> tuple[str, bytes]:
    return "speech.wav", wav_bytes(Pcm(to_int16(samples), STT_RATE_HZ))


async def test_it_finds_the_model(client: AsyncOpenAI) -> None:
    models = await client.models.list()
    assert [model.id for model in models.data] == ["moonshine/moonshine-tiny-en"]


async def test_it_gets_the_words(client: AsyncOpenAI) -> None:
    samples, words = librivox()[3]
    answer = await client.audio.transcriptions.create(
        model="whisper-1", file=wav(samples), language="en-US", prompt="A novel of 1813.", temperature=0
    )
    assert word_error_rate(words, answer.text) < 0.15


async def test_it_gets_plain_text(client: AsyncOpenAI) -> None:
    samples, words = librivox()[4]
    text = await client.audio.transcriptions.create(model="whisper-1", file=wav(samples), response_format="text")
    assert word_error_rate(words, text) < 0.15


async def test_it_gets_segments_with_their_times(client: AsyncOpenAI) -> None:
    samples = np.concatenate([samples for samples, _ in librivox()])
    answer = await client.audio.transcriptions.create(
        model="whisper-1", file=wav(samples), response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert answer.duration == pytest.approx(len(samples) / STT_RATE_HZ, abs=0.01)
    assert answer.segments is not None
    assert len(answer.segments) > 1
    assert " ".join(segment.text for segment in answer.segments) == answer.text
    times = [time for segment in answer.segments for time in (segment.start, segment.end)]
    assert times == sorted(times)
    assert times[-1] <= answer.duration


async def test_it_gets_a_stream(client: AsyncOpenAI) -> None:
    samples = np.concatenate([samples for samples, _ in librivox()])
    words = " ".join(words for _, words in librivox())
    stream = await client.audio.transcriptions.create(model="whisper-1", file=wav(samples), stream=True)
    deltas, whole = [], ""
    async for event in stream:
        if event.type == "transcript.text.delta":
            deltas.append(event.delta)
        elif event.type == "transcript.text.done":
            whole = event.text
    assert len(deltas) > 1
    assert "".join(deltas) == whole
    assert word_error_rate(words, whole) < 0.15


@pytest.mark.parametrize("kind", ["mp3", "flac", "ogg"])
async def test_it_may_send_compressed_audio(client: AsyncOpenAI, kind: str) -> None:
    samples, words = librivox()[3]
    file = io.BytesIO()
    soundfile.write(file, samples, STT_RATE_HZ, format=kind)
    answer = await client.audio.transcriptions.create(model="whisper-1", file=(f"speech.{kind}", file.getvalue()))
    assert word_error_rate(words, answer.text) < 0.2


async def test_a_bad_file_is_its_bad_request_in_a_sentence(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="WAV, FLAC, OGG and MP3") as caught:
        await client.audio.transcriptions.create(model="whisper-1", file=("speech.wav", b"These are words."))
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError, match="'xx'"):
        await client.audio.transcriptions.create(model="whisper-1", file=wav(librivox()[3][0]), language="xx")


async def test_a_file_that_is_too_large_is_refused_before_it_is_read(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="too large"):
        await client.audio.transcriptions.create(model="whisper-1", file=("speech.wav", bytes(27 * 2**20)))


async def test_a_full_worker_is_its_server_error_and_says_when_to_come_back(
    client: AsyncOpenAI, stt: WorkerProcess
) -> None:
    speech = wav(np.concatenate([samples for samples, _ in librivox()] * 10))
    busy = [asyncio.create_task(client.audio.transcriptions.create(model="whisper-1", file=speech)) for _ in range(2)]
    while (await asyncio.to_thread(stt.health))["in_flight"] < 2:
        assert not any(task.done() for task in busy)
        await asyncio.sleep(0.02)
    with pytest.raises(openai.InternalServerError, match="try again") as caught:
        await client.audio.transcriptions.create(model="whisper-1", file=wav(librivox()[3][0]))
    assert caught.value.status_code == 503
    assert int(caught.value.response.headers["Retry-After"]) > 0
    for task in busy:
        task.cancel()
    await asyncio.wait(busy)
    assert await asyncio.to_thread(stt.becomes_idle)


async def test_a_stream_that_is_closed_stops_the_work(client: AsyncOpenAI, stt: WorkerProcess) -> None:
    aborted = await asyncio.to_thread(stt.metric, "callbox_aborted_steps_total")
    speech = wav(np.concatenate([samples for samples, _ in librivox()] * 10))
    stream = await client.audio.transcriptions.create(model="whisper-1", file=speech, stream=True)
    async for _ in stream:
        break
    await stream.close()
    assert await asyncio.to_thread(stt.becomes_idle)
    assert await asyncio.to_thread(stt.metric_reaches, "callbox_aborted_steps_total", aborted + 1)
