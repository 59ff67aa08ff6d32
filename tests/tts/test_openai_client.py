"""OpenAI's own Python package speaks with this worker as with the service it was made for."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import openai
import pytest
import soundfile

from daemons.audio import TTS_RATE_HZ, read_wav
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

TEXT = "Hello there. This is the second sentence, and it is a little longer."
LONG = "This is one of very many sentences that nobody will ever hear. " * 60


@pytest.fixture
async def client(tts: WorkerProcess) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{tts.url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
async def session(tts: WorkerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(tts.url) as session:
        yield session


async def test_speech_is_written_to_a_file_as_the_manual_shows_it(client: openai.AsyncOpenAI, tmp_path: Path) -> None:
    file = tmp_path / "speech.mp3"
    async with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="coral", input=TEXT, instructions="Speak in a cheerful tone."
    ) as response:
        await response.stream_to_file(file)
    info = soundfile.info(file)
    assert (info.format, info.samplerate) == ("MP3", TTS_RATE_HZ)
    assert 2 < info.duration < 8


async def test_wav_says_its_length_and_streamed_holds_what_pcm_holds(client: openai.AsyncOpenAI) -> None:
    speech = client.audio.speech
    whole = await speech.create(model="tts-1", voice="alloy", input=TEXT, response_format="wav")
    streamed = await speech.create(
        model="tts-1", voice="heart", input=TEXT, response_format="wav", extra_body={"stream": True}
    )
    pcm = await speech.create(model="tts-1", voice="heart", input=TEXT, response_format="pcm")
    assert whole.response.headers["Content-Type"] == "audio/wav"
    assert 2 < read_wav(whole.content).duration_ms / 1000 < 8
    assert streamed.content[44:] == pcm.content


@pytest.mark.parametrize("audio_format", ["opus", "flac", "mp3"])
async def test_other_formats_decode(client: openai.AsyncOpenAI, audio_format: str) -> None:
    speech = await client.audio.speech.create(
        model="tts-1",
        voice="nova",
        input=TEXT,
        response_format=audio_format,  # type: ignore[arg-type]  # one of those that it names
    )
    heard, rate_hz = soundfile.read(io.BytesIO(speech.content), dtype="int16")
    assert rate_hz == TTS_RATE_HZ
    assert 2 < len(heard) / rate_hz < 8


async def test_pcm_comes_in_pieces_and_is_whole(client: openai.AsyncOpenAI) -> None:
    async with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=TEXT, response_format="pcm"
    ) as response:
        chunks = [chunk async for chunk in response.iter_bytes(4096)]
    whole = await client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT, response_format="pcm")
    assert len(chunks) > 10
    assert b"".join(chunks) == whole.content


async def test_who_stops_listening_stops_the_work(client: openai.AsyncOpenAI, tts: WorkerProcess) -> None:
    made_s = await asyncio.to_thread(tts.metric, "callbox_audio_seconds_total")
    async with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=LONG, response_format="pcm"
    ) as response:
        async for chunk in response.iter_bytes(4096):
            assert chunk
            break
    assert await asyncio.to_thread(tts.becomes_idle)
    await asyncio.sleep(1.1)  # figures are published once a second
    assert await asyncio.to_thread(tts.metric, "callbox_audio_seconds_total") - made_s < 120


async def test_speed_makes_speech_shorter(client: openai.AsyncOpenAI) -> None:
    lengths = []
    for speed in (1.0, 1.5):
        speech = await client.audio.speech.create(
            model="tts-1", voice="alloy", input=TEXT, response_format="pcm", speed=speed
        )
        lengths.append(len(speech.content))
    assert lengths[1] < 0.85 * lengths[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"response_format": "aac"}, "'aac' cannot be made here; mp3, opus, flac, wav, pcm can"),
        ({"voice": "nobody"}, "there is no voice 'nobody' here; the voice is 'heart'"),
        ({"input": ""}, "input: String should have at least 1 character"),
        ({"input": "x" * 4097}, "input: String should have at most 4096 characters"),
        ({"input": "你好"}, "the voice heart can say nothing of '你好'"),
        ({"speed": 4.0}, "speed: Input should be less than or equal to 2"),
        ({"stream_format": "sse"}, "stream_format: Input should be 'audio'"),
    ],
)
async def test_what_cannot_be_had_is_an_exception_that_says_why(
    client: openai.AsyncOpenAI, change: dict[str, object], sentence: str
) -> None:
    asked = {"model": "tts-1", "voice": "alloy", "input": TEXT, **change}
    with pytest.raises(openai.BadRequestError) as refused:
        await client.audio.speech.create(**asked)  # type: ignore[arg-type]  # some are wrong on purpose
    assert sentence in refused.value.message
    assert refused.value.type == "invalid_request_error"


async def test_a_busy_worker_is_an_exception_that_says_when_to_come_again(
    client: openai.AsyncOpenAI, session: aiohttp.ClientSession
) -> None:
    async with session.ws_connect("/tts/live"), session.ws_connect("/tts/live"):
        with pytest.raises(openai.InternalServerError) as refused:
            await client.audio.speech.create(model="tts-1", voice="alloy", input=TEXT)
    assert refused.value.status_code == 503
    assert "try again soon" in refused.value.message
    assert refused.value.type == "at_capacity"
    assert int(refused.value.response.headers["Retry-After"]) > 0


async def test_the_package_s_own_retry_gets_through_once_there_is_room(
    client: openai.AsyncOpenAI, session: aiohttp.ClientSession
) -> None:
    speech = client.with_options(max_retries=2).audio.speech
    async with session.ws_connect("/tts/live"), session.ws_connect("/tts/live") as leaving:
        asking = asyncio.ensure_future(
            speech.with_raw_response.create(model="tts-1", voice="alloy", input=TEXT, response_format="wav")
        )
        await asyncio.sleep(1)
        assert not asking.done()
        await leaving.close()
        answer = await asking
    assert answer.retries_taken >= 1
    assert read_wav(answer.content).duration_ms > 2000
