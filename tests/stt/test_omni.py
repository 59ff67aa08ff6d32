"""The engine `omni` before an upstream that checks what it is asked, and misbehaves."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import numpy as np
import pytest

from daemons.audio import STT_RATE_HZ, FloatSamples, read_wav
from daemons.errors import AtCapacity, BadRequest, CallboxError, ConfigurationError, Unavailable
from daemons.stt.asked import Asked
from daemons.stt.engines.omni import Omni, Timeouts, request_body
from ops.free_ports import free_port
from tests.llm import upstream_server as acts
from tests.llm.upstream_server import MODEL, WORDS, Act, UpstreamServer, begin, end

SPEECH: FloatSamples = (0.4 * np.sin(np.arange(2 * STT_RATE_HZ) * 0.05)).astype(np.float32)
QUICK = Timeouts(connect_s=1.0, first_token_s=0.5, between_tokens_s=0.5, check_s=0.5)
Asking = Callable[..., AbstractAsyncContextManager[tuple[Omni, UpstreamServer]]]


@pytest.fixture
def asking() -> Asking:
    @asynccontextmanager
    async def make(*then: Act, key: str = "", timeouts: Timeouts = QUICK) -> AsyncIterator[tuple[Omni, UpstreamServer]]:
        """An engine that is loaded; its next answers are `then`."""
        async with UpstreamServer(key=key) as server:
            engine = Omni(server.url, model="", api_key=key, timeouts=timeouts)
            try:
                await engine.load()
                server.asked.clear()
                server.acts.extend(then)
                yield engine, server
            finally:
                await engine.close()

    return make


def said(*words: str) -> Act:
    async def act(server: UpstreamServer, request: Any) -> Any:
        response = await begin(request, list(words))
        await end(response, None)
        return response

    return act


async def test_it_hears_the_very_samples_and_is_told_what_to_do(asking: Asking) -> None:
    async with asking(key="secret") as (engine, server):
        assert engine.model == MODEL
        asked = Asked(language="de", prompt="Bernkastel-Kues, Müller")
        assert await engine.transcribe(SPEECH, asked) == "".join(WORDS)
    [body] = server.asked
    [message] = body["messages"]
    [audio, task] = message["content"]
    assert audio["type"] == "input_audio"
    assert audio["input_audio"]["format"] == "wav"
    pcm = read_wav(base64.b64decode(audio["input_audio"]["data"]))
    assert pcm.rate_hz == STT_RATE_HZ
    assert np.array_equal(pcm.samples, np.rint(SPEECH * 32768))
    assert "word for word" in task["text"]
    assert "code de" in task["text"]
    assert "Bernkastel-Kues, Müller" in task["text"]
    assert body["temperature"] == 0
    assert body["max_tokens"] < 100


async def test_a_model_with_a_voice_is_asked_for_text_alone(asking: Asking) -> None:
    async with asking(acts.also_says_it) as (engine, _):
        assert await engine.transcribe(SPEECH, Asked()) == "".join(WORDS)


def test_no_language_and_no_prompt_are_not_mentioned() -> None:
    [_, task] = request_body("m", SPEECH, Asked())["messages"][0]["content"]
    assert "code" not in task["text"]
    assert "spelling" not in task["text"]


@pytest.mark.parametrize(
    ("answered", "heard"),
    [
        (["Hel", "lo there."], "Hello there."),
        ([], ""),
        ([" \n"], ""),
        (["[silence]"], ""),
        (["(no speech)"], ""),
        (['"Hello."'], "Hello."),
        (["He said [sic] no."], "He said [sic] no."),
        (["well the word of ", *["the word of "] * 30], "well the word of"),
    ],
)
async def test_its_answer_is_tidied(asking: Asking, answered: list[str], heard: str) -> None:
    async with asking(said(*answered)) as (engine, _):
        assert await engine.transcribe(SPEECH, Asked()) == heard


async def test_an_answer_that_goes_round_in_circles_is_not_waited_for(asking: Asking) -> None:
    async with asking(acts.never_ends, timeouts=Timeouts()) as (engine, server):
        async with asyncio.timeout(5):
            assert await engine.transcribe(SPEECH, Asked()) in ("and so on", "and so on and so on")
            await server.client_left.wait()


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (acts.refuses(400, "no audio of mine"), BadRequest, "no audio of mine"),
        (acts.refuses(401, "who are you"), Unavailable, "key: who are you"),
        (acts.refuses(429, "slow down"), AtCapacity, "slow down"),
        (acts.refuses(503, "all places are taken"), AtCapacity, "all places are taken"),
        (acts.refuses(500, "out of memory"), Unavailable, "out of memory"),
        (acts.refuses(307, "over there"), Unavailable, "elsewhere"),
        (acts.fails_in_html, Unavailable, "Bad Gateway"),
        (acts.hangs, Unavailable, "0.5 s before its answer"),
        (acts.hangs_in_the_middle, Unavailable, "0.5 s in the middle"),
        (acts.hangs_up_at_once, Unavailable, "cannot be reached"),
        (acts.hangs_up_in_the_middle, Unavailable, "cannot be reached"),
        (acts.ends_without_a_reason, Unavailable, "before its answer had ended"),
        (acts.says_garbage(b"{garbage"), Unavailable, "no answer"),
        (acts.says_garbage(b'["a list"]', "It "), Unavailable, "no answer"),
        (acts.says_garbage(b'{"error": {"message": "it broke"}}', "It "), Unavailable, "it broke"),
    ],
)
async def test_what_goes_wrong_is_passed_on_in_words(
    asking: Asking, act: Act, error: type[CallboxError], words: str
) -> None:
    async with asking(act) as (engine, _):
        with pytest.raises(error, match=words):
            await engine.transcribe(SPEECH, Asked())
        assert await engine.transcribe(SPEECH, Asked()) == "".join(WORDS)


async def test_a_slow_answer_is_waited_for_while_it_goes_on(asking: Asking) -> None:
    async with asking(acts.slowly(0.3)) as (engine, _):
        assert await engine.transcribe(SPEECH, Asked()) == "".join(WORDS)


async def test_who_is_cancelled_hangs_up(asking: Asking) -> None:
    async with asking(acts.hangs, timeouts=Timeouts()) as (engine, server):
        task = asyncio.create_task(engine.transcribe(SPEECH, Asked()))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait_for(server.client_left.wait(), 5)


async def test_it_waits_for_an_upstream_that_comes_later() -> None:
    port = free_port()
    engine = Omni(f"http://127.0.0.1:{port}/v1", model="", api_key="", timeouts=QUICK)
    loading = asyncio.create_task(engine.load())
    await asyncio.sleep(0.2)
    assert not loading.done()
    async with UpstreamServer(port=port):
        await asyncio.wait_for(loading, 20)
        await engine.check()
    with pytest.raises(Unavailable, match="does not answer"):
        await engine.check()
    await engine.close()


async def test_what_will_never_work_is_said_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match="CALLBOX_STT_OMNI_URL"):
        Omni("localhost:8000", model="", api_key="")
    async with UpstreamServer(key="secret") as server:
        engine = Omni(server.url, model="", api_key="wrong", timeouts=QUICK)
        with pytest.raises(ConfigurationError, match="CALLBOX_STT_OMNI_API_KEY"):
            await engine.load()
        await engine.close()
    async with UpstreamServer(acts.refuses(400, "takes text; input_audio is none of it")) as server:
        engine = Omni(server.url, model="", api_key="", timeouts=QUICK)
        with pytest.raises(ConfigurationError, match="a model that hears is wanted"):
            await engine.load()
        await engine.close()
