import asyncio
import urllib.request
from collections.abc import AsyncIterator

import aiohttp
import numpy as np
import pytest

from daemons.audio import Samples
from daemons.tts.speech import LONGEST_TEXT_CHARS
from daemons.tts.vibevoice import REQUEST_LINE_BYTES
from tests.tts.vibevoice import Heard, Told, VibeVoiceClient
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

TEXT = "Hello there. This is the second sentence, and it is a little longer. Here is the third one."
LONG = "This is one of very many sentences that nobody will ever hear. " * 60
MEDIUM = LONG[:250]  # longer than a stream runs ahead of its listener, so it is open for some seconds
COMPLETE: Told = ("backend_stream_complete", {})


@pytest.fixture
async def session(tts: WorkerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(tts.url, timeout=aiohttp.ClientTimeout(60)) as session:
        yield session


async def listen(session: aiohttp.ClientSession, **query: str) -> Heard:
    """A whole stream that begins as it should."""
    async with session.ws_connect("/stream", params=query) as socket:
        client = VibeVoiceClient(socket, from_sample=int(query.get("from_sample", 0)))
        await client.begin()
        return await client.end()


async def refused(session: aiohttp.ClientSession, **query: str) -> Heard:
    """A stream of which nothing is heard but why."""
    async with session.ws_connect("/stream", params=query) as socket:
        return await VibeVoiceClient(socket).farewell()


async def undisturbed(session: aiohttp.ClientSession, text: str) -> Samples:
    async with session.post("/tts/stream", json={"text": text}) as response:
        return np.frombuffer(await response.read(), "<i2")


async def drop(session: aiohttp.ClientSession) -> None:
    """Lose every connection without a closing handshake."""
    assert session.connector is not None
    await session.connector.close()


def ended(tts: WorkerProcess, how: str) -> float:
    """How many streams have ended so."""
    with urllib.request.urlopen(f"http://127.0.0.1:{tts.port + 1}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    counted = [line for line in lines if line.startswith(f'callbox_streams_ended_total{{how="{how}"}}')]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counted)


async def test_each_step_of_the_wire(session: aiohttp.ClientSession) -> None:
    heard = await listen(session, text=TEXT, cfg="2.5", steps="7", voice="heart")
    stream_id = heard.request.pop("stream_id")
    assert heard.request == {"text_length": len(TEXT), "cfg_scale": 2.5, "inference_steps": 7, "voice": "heart"}
    assert len(stream_id) == 32
    assert set(heard.frames[:-1]) == {512}
    assert 0 < heard.frames[-1] <= 512
    assert heard.ends == [COMPLETE]
    assert heard.close == (1000, "")
    assert np.array_equal(heard.samples, await undisturbed(session, TEXT))


async def test_the_configuration_names_the_voices(session: aiohttp.ClientSession) -> None:
    async with session.get("/config") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        assert await response.json() == {"voices": ["heart"], "default_voice": "heart"}


@pytest.mark.parametrize(
    ("query", "said_back"),
    [
        ({}, (1.5, None, None)),
        ({"cfg": "abc", "steps": "abc", "voice": "nobody"}, (1.5, None, "nobody")),
        ({"cfg": "0", "steps": "0", "voice": ""}, (1.5, None, "")),
        ({"cfg": "-2", "steps": "-3"}, (1.5, None, None)),
        ({"cfg": "nan", "steps": "5.5"}, (1.5, None, None)),
        ({"cfg": "inf", "steps": ""}, (1.5, None, None)),
        ({"cfg": "1.300", "steps": "12"}, (1.3, 12, None)),
    ],
)
async def test_what_cannot_be_read_has_its_default(
    session: aiohttp.ClientSession, query: dict[str, str], said_back: tuple[float, int | None, str | None]
) -> None:
    heard = await listen(session, text="Yes.", **query)
    request = heard.request
    assert (request["cfg_scale"], request["inference_steps"], request["voice"]) == said_back
    assert heard.frames
    assert heard.ends == [COMPLETE]


@pytest.mark.parametrize("query", [{}, {"text": ""}, {"text": "  \n "}])
async def test_without_text_the_stream_is_complete_at_once(
    session: aiohttp.ClientSession, query: dict[str, str]
) -> None:
    heard = await listen(session, **query)
    assert heard.request["text_length"] == len(query.get("text", ""))
    assert (heard.frames, heard.ends, heard.close) == ([], [COMPLETE], (1000, ""))


async def test_text_that_the_voice_cannot_say_is_an_error_told_as_vibevoice_tells_it(
    session: aiohttp.ClientSession,
) -> None:
    heard = await listen(session, text="你好")
    message = {"message": "the voice heart can say nothing of '你好'"}
    assert heard.ends == [("generation_error", message), ("backend_error", message), COMPLETE]
    assert heard.close == (1000, "")


async def test_the_longest_text_passes_whatever_it_is_written_in(session: aiohttp.ClientSession) -> None:
    text = "Yes. " + "\N{SPEAKER}" * (LONGEST_TEXT_CHARS - 5)  # four bytes each, which are twelve in a query
    async with session.ws_connect("/stream", params={"text": text}) as socket:
        told = (await socket.receive_json(timeout=20))["data"]
        assert told["text_length"] == LONGEST_TEXT_CHARS
        assert (await socket.receive(timeout=20)).type is aiohttp.WSMsgType.BINARY


async def test_too_much_text_is_refused_with_a_sentence(session: aiohttp.ClientSession) -> None:
    heard = await listen(session, text="x" * (LONGEST_TEXT_CHARS + 1))
    assert [event for event, _ in heard.ends] == ["backend_error", "backend_stream_complete"]
    assert f"at most {LONGEST_TEXT_CHARS} characters" in heard.ends[0][1]["message"]


async def test_a_request_line_beyond_every_text_is_refused_without_ado(
    session: aiohttp.ClientSession, tts: WorkerProcess
) -> None:
    async with session.get("/stream", params={"text": "x" * REQUEST_LINE_BYTES}) as response:
        assert response.status == 400
        assert str(REQUEST_LINE_BYTES) in await response.text()
    log = tts.log.read_text()
    assert str(REQUEST_LINE_BYTES) in log
    assert "Traceback" not in log


async def test_a_request_that_is_no_websocket_is_refused(session: aiohttp.ClientSession) -> None:
    async with session.get("/stream", params={"text": "a"}) as response:
        assert response.status == 400
        assert "upgrade" in (await response.json())["error"]["message"].lower()


async def test_one_client_too_many_is_told_so_and_the_others_are_unharmed(session: aiohttp.ClientSession) -> None:
    query = {"text": MEDIUM}
    async with session.ws_connect("/stream", params=query) as one, session.ws_connect("/stream", params=query) as two:
        clients = [VibeVoiceClient(socket) for socket in (one, two)]
        for client in clients:
            await client.begin()
        heard = await refused(session, text="Me too.")
        assert [event for event, _ in heard.ends] == ["backend_busy"]
        assert "try again" in heard.ends[0][1]["message"]
        assert heard.close == (1013, "Service busy")
        both = await asyncio.gather(*(client.end() for client in clients))
    whole = await undisturbed(session, MEDIUM)
    for heard in both:
        assert np.array_equal(heard.samples, whole)
        assert heard.ends == [COMPLETE]


@pytest.mark.parametrize("how", ["cancelled", "client_gone"])
async def test_a_client_that_goes_stops_the_work_and_frees_its_place(tts: WorkerProcess, how: str) -> None:
    before = await asyncio.to_thread(ended, tts, how)
    made_s = await asyncio.to_thread(tts.metric, "callbox_audio_seconds_total")
    for _ in range(6):  # three times the places there are
        async with aiohttp.ClientSession(tts.url) as session:
            async with session.ws_connect("/stream", params={"text": LONG}) as socket:
                client = VibeVoiceClient(socket)
                await client.begin()
                assert await client.frame()
                if how == "client_gone":
                    await drop(session)
            assert await asyncio.to_thread(tts.becomes_idle)
    await asyncio.sleep(1.1)  # figures are published once a second
    assert await asyncio.to_thread(tts.metric, "callbox_audio_seconds_total") - made_s < 6 * 60
    assert await asyncio.to_thread(ended, tts, how) - before == 6


async def test_a_client_that_says_goodbye_is_answered(session: aiohttp.ClientSession) -> None:
    async with session.ws_connect("/stream", params={"text": LONG}) as socket:
        client = VibeVoiceClient(socket)
        await client.begin()
        assert await client.frame()
        await socket._writer.close(1000)  # `close` would not read what follows
        while await client.frame():
            pass
        heard = await client.farewell()
    assert heard.ends == [("client_disconnected", {}), COMPLETE]
    assert heard.close == (1000, "")


@pytest.mark.parametrize("at_frame", [1, 40, 150])
async def test_a_stream_that_was_cut_goes_on_where_it_stopped(
    session: aiohttp.ClientSession, tts: WorkerProcess, at_frame: int
) -> None:
    async with (
        aiohttp.ClientSession(tts.url) as first,
        first.ws_connect("/stream", params={"text": TEXT, "cfg": "3", "voice": "nobody"}) as socket,
    ):
        client = VibeVoiceClient(socket)
        await client.begin()
        for _ in range(at_frame):
            assert await client.frame()
        await drop(first)
    cut = client.heard
    rest = await listen(session, resume=cut.stream_id, from_sample=str(len(cut.samples)))
    assert rest.request == cut.request
    assert rest.ends == [COMPLETE]
    assert np.array_equal(np.concatenate([cut.samples, rest.samples]), await undisturbed(session, TEXT))


async def test_a_stream_goes_on_from_any_sample_and_more_than_once(session: aiohttp.ClientSession) -> None:
    whole = await listen(session, text=TEXT)
    for from_sample in (len(whole.samples), 12_345, 0, 1):
        again = await listen(session, resume=whole.stream_id, from_sample=str(from_sample))
        assert np.array_equal(again.samples, whole.samples[from_sample:])
        assert again.ends == [COMPLETE]
        assert set(again.frames[:-1]) <= {512}


@pytest.mark.parametrize("from_sample", ["-1", "abc", "1.5", "", "9" * 13])
async def test_a_place_that_is_no_number_is_refused(session: aiohttp.ClientSession, from_sample: str) -> None:
    heard = await refused(session, resume="0" * 32, from_sample=from_sample)
    assert [event for event, _ in heard.ends] == ["backend_error", "backend_stream_complete"]
    assert "from_sample" in heard.ends[0][1]["message"]
    assert heard.close == (1000, "")


async def test_a_stream_that_nobody_knows_is_refused(session: aiohttp.ClientSession) -> None:
    heard = await refused(session, resume="0" * 32, from_sample="512")
    assert heard.ends[0][0] == "backend_error"
    assert "no stream '000" in heard.ends[0][1]["message"]
    assert "120 s" in heard.ends[0][1]["message"]


async def test_a_place_beyond_the_end_is_refused(session: aiohttp.ClientSession) -> None:
    whole = await listen(session, text="Yes.")
    beyond = len(whole.samples) + 1
    heard = await listen(session, resume=whole.stream_id, from_sample=str(beyond))
    assert heard.ends == [
        ("backend_error", {"message": f"there is no sample {beyond}: the stream ends after {beyond - 1}"}),
        COMPLETE,
    ]


async def test_who_resumes_takes_over_from_a_connection_that_still_lives(session: aiohttp.ClientSession) -> None:
    async with session.ws_connect("/tts/live"), session.ws_connect("/stream", params={"text": MEDIUM}) as old:
        client = VibeVoiceClient(old)
        stream_id = (await client.begin())["stream_id"]
        assert await client.frame()
        # Every place is taken, and the old connection's becomes the new one's
        new = await listen(session, resume=stream_id, from_sample="512")
        heard = await client.end()
    message = {"message": "another connection has taken this stream over"}
    assert heard.ends == [("backend_error", message), COMPLETE]
    assert heard.close == (1000, "")
    whole = await undisturbed(session, MEDIUM)
    assert len(heard.samples) < len(whole)
    assert np.array_equal(heard.samples, whole[: len(heard.samples)])
    assert np.array_equal(new.samples, whole[512:])


async def test_of_many_who_resume_at_once_one_hears_the_rest(session: aiohttp.ClientSession) -> None:
    whole = await listen(session, text=MEDIUM)
    every = await asyncio.gather(*(listen(session, resume=whole.stream_id) for _ in range(5)))
    finished = [heard for heard in every if heard.ends == [COMPLETE]]
    assert finished
    assert all(np.array_equal(heard.samples, whole.samples) for heard in finished)
    assert all(heard.ends[0][0] == "backend_error" for heard in every if heard not in finished)


async def test_a_worker_that_stops_says_so(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    with WorkerProcess("tts", redis_url, tmp_path_factory.mktemp("tts-end")) as worker:
        async with (
            aiohttp.ClientSession(worker.url) as session,
            session.ws_connect("/stream", params={"text": LONG}) as socket,
        ):
            client = VibeVoiceClient(socket)
            await client.begin()
            assert await client.frame()
            ending = asyncio.create_task(asyncio.to_thread(worker.end))
            await asyncio.sleep(1)  # unread, the stream is open and silent: no work that the worker would wait for
            heard = await client.end()
            assert await ending == 0
    assert heard.ends == [("backend_error", {"message": "this worker is stopping"}), COMPLETE]
    assert heard.close == (1001, "this worker is stopping")
