"""The workers that answer from a script, asked by the agent's own client."""

from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from daemons import wire
from daemons.agent.peers import Peers
from daemons.audio import STT_RATE_HZ, TTS_RATE_HZ, Pcm, wav_bytes
from daemons.clock import SystemClock
from daemons.registry import Holder, Lease, connect
from ops.bench.load.scripted import ANSWER, QUESTION, ROLES
from ops.redis_server import RedisServer
from ops.worker import Worker
from tests.bench.test_waves import voice

pytestmark = pytest.mark.integration


async def test_an_agent_has_all_that_it_asks_for(tmp_path: Path) -> None:
    said, wav = voice(1.0), tmp_path / "answer.wav"
    wav.write_bytes(wav_bytes(Pcm(said, TTS_RATE_HZ)))
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path))
        for role in ROLES:
            module = ("ops.bench.load.scripted", role, str(wav))
            await stack.enter_async_context(Worker(role, redis.url, tmp_path, module, slots=1))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        registry = connect(redis.url)
        stack.push_async_callback(registry.close)
        granted = await registry.acquire("call-1", list(ROLES))
        assert granted.fence is not None
        assert granted.bundle is not None
        peers = Peers(session, Holder(registry, Lease(0, "call-1", granted.fence, granted.bundle, 0), SystemClock()), 1)
        stack.push_async_callback(peers.close)

        final = await peers.transcribe(np.zeros(STT_RATE_HZ, np.int16))
        assert final.text == QUESTION
        assert final.audio_ms == 1000

        body = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 150}
        assert "".join([piece async for piece in peers.chat(body, "committed")]).strip() == ANSWER
        await peers.read_ahead(body)
        await peers.keep_answer()

        for _ in range(2):
            speech = await peers.speech("speculative")
            await speech.write("The capital ")
            await speech.write("of France ")
            await speech.end()
            segment, *frames = [part async for part in speech]
            assert isinstance(segment, wire.TtsSegment)
            assert segment.samples == len(said)
            assert np.array_equal(
                np.concatenate([part for part in frames if not isinstance(part, wire.TtsSegment)]), said
            )
        assert np.array_equal(await peers.render("One moment, please."), said)
