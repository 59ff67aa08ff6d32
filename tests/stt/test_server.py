import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest

from daemons import wire
from daemons.audio import STT_RATE_HZ, Pcm, Samples, to_int16, wav_bytes
from tests.speech_samples import librivox, needs_librivox, word_error_rate
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration


@pytest.fixture
async def session(stt: WorkerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(stt.url, timeout=aiohttp.ClientTimeout(30)) as session:
        yield session


def clip(number: int) -> tuple[Samples, str]:
    samples, words = librivox()[number]
    return to_int16(samples), words


async def receive(socket: aiohttp.ClientWebSocketResponse) -> wire.SttReply:
    return wire.stt_reply.validate_json(await socket.receive_str(timeout=20))


async def upload(session: aiohttp.ClientSession, file: bytes | None, **fields: str) -> tuple[int, str]:
    form = aiohttp.FormData()
    for name, value in {"model": "whisper-1", **fields}.items():
        form.add_field(name, value)
    if file is not None:
        form.add_field("file", io.BytesIO(file), filename="speech.wav", content_type="audio/wav")
    async with session.post("/v1/audio/transcriptions", data=form) as response:
        return response.status, await response.text()


def error_in(text: str) -> str:
    error: dict[str, Any] = json.loads(text)["error"]
    return str(error["message"])


@needs_librivox
async def test_a_commit_answers_with_the_words_so_far_and_another_with_all_of_them(
    session: aiohttp.ClientSession,
) -> None:
    samples, words = clip(3)
    async with session.ws_connect("/stt/live") as socket:
        await socket.send_str(wire.SttStart(utterance=7).model_dump_json())
        half = len(samples) // 2
        await socket.send_bytes(samples[:half].tobytes())
        await socket.send_str(wire.SttCommit(id=1, priority="speculative").model_dump_json())
        first = await receive(socket)
        await socket.send_bytes(samples[half:].tobytes())
        await socket.send_str(wire.SttCommit(id=2).model_dump_json())
        second = await receive(socket)
    assert isinstance(first, wire.SttFinal)
    assert isinstance(second, wire.SttFinal)
    assert (first.id, second.id, second.utterance) == (1, 2, 7)
    assert first.audio_ms < second.audio_ms == pytest.approx(len(samples) / 16)
    assert 0 < len(first.text) < len(second.text)
    assert word_error_rate(words, second.text) < 0.15


@needs_librivox
async def test_start_drops_what_the_last_utterance_held(session: aiohttp.ClientSession) -> None:
    async with session.ws_connect("/stt/live") as socket:
        for utterance in (0, 1):
            await socket.send_str(wire.SttStart(utterance=utterance).model_dump_json())
            await socket.send_bytes(clip(utterance)[0].tobytes())
        await socket.send_str(wire.SttCommit(id=1).model_dump_json())
        reply = await receive(socket)
    assert isinstance(reply, wire.SttFinal)
    assert word_error_rate(clip(1)[1], reply.text) < 0.4


@needs_librivox
async def test_cancel_answers_every_commit_under_way_and_closes_the_utterance(session: aiohttp.ClientSession) -> None:
    async with session.ws_connect("/stt/live") as socket:
        await socket.send_str(wire.SttStart(utterance=1).model_dump_json())
        await socket.send_bytes(clip(0)[0].tobytes())
        await socket.send_str(wire.SttCommit(id=1).model_dump_json())
        await socket.send_str(wire.SttCommit(id=2).model_dump_json())
        await socket.send_str(wire.SttCancel().model_dump_json())
        await socket.send_str(wire.SttCommit(id=3).model_dump_json())
        replies = [await receive(socket) for _ in range(3)]
    assert [(reply.type, getattr(reply, "id", None)) for reply in replies] == [("error", 1), ("error", 2), ("error", 3)]
    assert "utterance" in getattr(replies[2], "message", "")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([b"\0\0"], "before `start`"),
        (['{"type": "start", "utterance": 1}', b"\0"], "odd"),
        (
            ['{"type": "start", "utterance": 1}', bytes(20 * STT_RATE_HZ * 2), bytes(11 * STT_RATE_HZ * 2)],
            "at most 30 s",
        ),
        (['{"type": "start"}'], "utterance"),
        (["no json"], "JSON"),
        (['{"type": "dance"}'], "dance"),
    ],
)
async def test_bad_input_ends_the_stream_with_a_sentence(
    session: aiohttp.ClientSession, messages: list[str | bytes], reason: str
) -> None:
    async with session.ws_connect("/stt/live") as socket:
        for message in messages:
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_str(message)
        reply = await receive(socket)
        assert isinstance(reply, wire.StreamError)
        assert reason in reply.message
        assert (await socket.receive(timeout=5)).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION


@needs_librivox
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 48_000])
async def test_a_file_of_any_rate_is_transcribed(session: aiohttp.ClientSession, rate_hz: int) -> None:
    samples, words = clip(3)
    status, text = await upload(session, wav_bytes(Pcm(samples, STT_RATE_HZ).resampled(rate_hz)))
    assert status == 200
    assert word_error_rate(words, json.loads(text)["text"]) < 0.15


@needs_librivox
async def test_the_answer_has_the_format_that_was_asked_for(session: aiohttp.ClientSession) -> None:
    samples, words = clip(4)
    file = wav_bytes(Pcm(samples, STT_RATE_HZ))
    _, text = await upload(session, file, response_format="text", language="en")
    assert word_error_rate(words, text) < 0.15
    _, verbose = await upload(session, file, response_format="verbose_json")
    answer = json.loads(verbose)
    assert answer["duration"] == pytest.approx(len(samples) / STT_RATE_HZ, abs=0.01)
    assert " ".join(segment["text"] for segment in answer["segments"]) == answer["text"]


async def test_silence_is_an_empty_text(session: aiohttp.ClientSession) -> None:
    status, text = await upload(session, wav_bytes(Pcm(np.zeros(STT_RATE_HZ, np.int16), STT_RATE_HZ)))
    assert (status, json.loads(text)) == (200, {"text": ""})


SECOND = wav_bytes(Pcm(np.zeros(STT_RATE_HZ, np.int16), STT_RATE_HZ))


@pytest.mark.parametrize(
    ("file", "fields", "reason"),
    [
        (None, {}, "`file`"),
        (b"ID3 this is no mp3", {}, "MP3 file cannot be read"),
        (b"", {}, "empty"),
        (b"hello", {}, "WAV, FLAC, OGG and MP3"),
        (b"\x1a\x45\xdf\xa3 from a browser", {}, "WebM"),
        (SECOND[:20], {}, "WAV"),
        (SECOND, {"response_format": "srt"}, "srt"),
        (SECOND, {"language": "nl"}, "nl"),
        (SECOND, {"language": "no language"}, "code"),
        (SECOND, {"timestamp_granularities[]": "word"}, "segment"),
        (SECOND, {"prompt": "x" * 5000}, "prompt"),
        (wav_bytes(Pcm(np.zeros(100, np.int16), 1000)), {}, "1000 Hz"),
    ],
)
async def test_a_bad_upload_is_refused_in_a_sentence(
    session: aiohttp.ClientSession, file: bytes | None, fields: dict[str, str], reason: str
) -> None:
    status, text = await upload(session, file, **fields)
    assert status == 400
    assert reason in error_in(text)


async def test_a_body_that_is_no_form_is_refused(session: aiohttp.ClientSession) -> None:
    async with session.post("/v1/audio/transcriptions", json={}) as response:
        assert response.status == 400
        assert "multipart" in error_in(await response.text())


async def test_over_capacity_the_answer_is_busy_and_the_others_are_unharmed(
    session: aiohttp.ClientSession, stt: WorkerProcess
) -> None:
    async with session.ws_connect("/stt/live") as one, session.ws_connect("/stt/live"):
        status, text = await upload(session, SECOND)
        assert status == 503
        assert "try again" in error_in(text)
        await one.send_str(wire.SttStart(utterance=1).model_dump_json())
        await one.send_str(wire.SttCommit(id=1).model_dump_json())
        assert isinstance(await receive(one), wire.SttFinal)
    for _ in range(50):
        status, _ = await upload(session, SECOND)
        if status == 200:
            break
        await asyncio.sleep(0.05)
    assert status == 200


@needs_librivox
async def test_a_client_that_goes_stops_the_work(session: aiohttp.ClientSession, stt: WorkerProcess) -> None:
    aborted = await asyncio.to_thread(stt.metric, "callbox_aborted_steps_total")
    speech = np.concatenate([clip(number)[0] for number in range(5)] * 20)
    uploading = asyncio.create_task(upload(session, wav_bytes(Pcm(speech, STT_RATE_HZ))))
    while not (await asyncio.to_thread(stt.health))["in_flight"]:
        assert not uploading.done()
        await asyncio.sleep(0.02)
    uploading.cancel()
    assert await asyncio.to_thread(stt.becomes_idle)
    assert await asyncio.to_thread(stt.metric_reaches, "callbox_aborted_steps_total", aborted + 1)
