"""A worker with the engine `omni`, behind this box's own LLM worker, behind a server that hears."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from openai import AsyncOpenAI, BadRequestError

from daemons import wire
from daemons.audio import STT_RATE_HZ, Pcm, read_wav, to_int16, wav_bytes
from daemons.errors import EXIT_DO_NOT_RESTART
from tests.llm import upstream_server as acts
from tests.llm.upstream_server import WORDS, UpstreamServer
from tests.speech_samples import librivox, needs_librivox
from tests.waiting import until
from tests.worker_process import WorkerProcess

pytestmark = [pytest.mark.integration, needs_librivox]


class Chain:
    """stt (omni) → llm (openai, omni) → upstream."""

    def __init__(self, redis_url: str, folder: Path) -> None:
        self.upstream = UpstreamServer()
        url = self.upstream.url
        self.llm = WorkerProcess("llm", redis_url, folder, llm_engine="openai", llm_omni=True, llm_upstream_url=url)
        self.stt = WorkerProcess("stt", redis_url, folder, stt_engine="omni", llm_port=self.llm.port)


@pytest.fixture
async def chain(redis_url: str, tmp_path: Path) -> AsyncIterator[Chain]:
    chain = Chain(redis_url, tmp_path)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(chain.upstream)
        for worker in (chain.llm, chain.stt):
            await asyncio.to_thread(worker.__enter__)
            stack.push_async_callback(asyncio.to_thread, worker.end)
        yield chain


async def is_away(worker: WorkerProcess) -> bool:
    return bool((await asyncio.to_thread(worker.health))["upstream_away"])


async def is_here(worker: WorkerProcess) -> bool:
    return not await is_away(worker)


async def test_the_speech_reaches_the_model_and_its_words_come_back(chain: Chain) -> None:
    samples = to_int16(librivox()[3][0])
    chain.upstream.asked.clear()
    async with AsyncOpenAI(base_url=f"{chain.stt.url}/v1", api_key="-", max_retries=0) as client:
        file = ("a.wav", wav_bytes(Pcm(samples, STT_RATE_HZ)))
        answer = await client.audio.transcriptions.create(model="", file=file, language="en", prompt="Austen")
        assert answer.text == "".join(WORDS)
        [body] = chain.upstream.asked
        [audio, task] = body["messages"][0]["content"]
        assert (read_wav(base64.b64decode(audio["input_audio"]["data"])).samples == samples).all()
        assert "Austen" in task["text"]
        chain.upstream.asked.clear()
        silence = ("s.wav", wav_bytes(Pcm(samples * 0, STT_RATE_HZ)))
        assert (await client.audio.transcriptions.create(model="", file=silence)).text == ""
        assert chain.upstream.asked == []  # no model is asked what silence says
        chain.upstream.acts.append(acts.refuses(400, "this voice is not to be written down"))
        with pytest.raises(BadRequestError, match="not to be written down"):
            await client.audio.transcriptions.create(model="", file=file)

    async with aiohttp.ClientSession(chain.stt.url) as session, session.ws_connect("/stt/live") as socket:
        await socket.send_str(wire.SttStart(utterance=1).model_dump_json())
        await socket.send_bytes(samples.tobytes())
        chain.upstream.acts.append(acts.refuses(400, "not this either"))
        for commit in (1, 2):
            await socket.send_str(wire.SttCommit(id=commit).model_dump_json())
            reply = wire.stt_reply.validate_json(await socket.receive_str(timeout=20))
            if commit == 1:
                assert isinstance(reply, wire.StreamError)
                assert "not this either" in reply.message
            else:
                assert isinstance(reply, wire.SttFinal)
                assert reply.text == "".join(WORDS)
        chain.upstream.acts.append(acts.hangs)
        chain.upstream.asked.clear()
        await socket.send_str(wire.SttCommit(id=3).model_dump_json())
        await until(lambda: bool(chain.upstream.asked), within_s=10)
    await asyncio.wait_for(chain.upstream.client_left.wait(), 10)  # the close went all the way up
    assert await asyncio.to_thread(chain.stt.becomes_idle)


async def test_it_is_not_ready_while_its_upstream_is_away(redis_url: str, tmp_path: Path) -> None:
    async with UpstreamServer() as upstream:
        worker = WorkerProcess("stt", redis_url, tmp_path, stt_engine="omni", stt_omni_url=upstream.url)
        await asyncio.to_thread(worker.__enter__)
    try:
        await until(lambda: is_away(worker), within_s=20)
        async with UpstreamServer(port=upstream.port):
            await until(lambda: is_here(worker), within_s=20)
    finally:
        await asyncio.to_thread(worker.end)


async def test_a_model_that_does_not_hear_is_said_and_not_tried_again(redis_url: str, tmp_path: Path) -> None:
    async with UpstreamServer(acts.refuses(400, "takes text; input_audio is none of it")) as upstream:
        worker = WorkerProcess("stt", redis_url, tmp_path, stt_engine="omni", stt_omni_url=upstream.url)
        process = worker.start()
        assert await asyncio.to_thread(process.wait, 60) == EXIT_DO_NOT_RESTART
        assert "a model that hears is wanted" in worker.log.read_text()
