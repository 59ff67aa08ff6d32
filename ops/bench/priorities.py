"""What a caller's turn takes beside another call's work, with priorities between processes and without."""

import asyncio
import itertools
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np

from daemons import wire
from daemons.audio import STT_RATE_HZ, Samples
from daemons.wire import Priority
from ops.bench import llm, stt
from ops.bench.speaking import replies
from ops.figures import Bound, Report, Summary
from ops.redis_server import RedisServer
from ops.run import StepFailed
from ops.worker import Worker

SPEECH_S = 2.5
SPEECH_SAMPLES = int(SPEECH_S * STT_RATE_HZ)
LATEST_IN_ANSWER_S = 1.5  # after its first audio: it is being written for longer
LATEST_IN_READING_S = 0.4
TURN_TOKENS = 24  # its first words are enough
TIMEOUT_S = 120.0
LEAST_GAIN = 1.0
BEHIND, BESIDE = "engine behind the others", "engine as the others"
ALONE, ANSWER, READ_AHEAD = "alone", "beside a long answer", "beside a prompt that is read ahead"
WHAT = ("text", "first audio")


class Turn(NamedTuple):
    """A caller's, in ms: from the commit to the text, on to the answer's first token, on to its first audio."""

    text: float
    first_token: float
    first_audio: float

    @property
    def whole(self) -> float:
        return sum(self)


class Box:
    """Two callers of the same three workers. The second one's turns are measured."""

    def __init__(self, http: aiohttp.ClientSession, ears: Worker, chat: Worker, voice: Worker) -> None:
        self._http = http
        self._ears = stt.Speaker(ears, http)
        self._chat = llm.Caller(chat, http)
        self._voice = voice
        self._numbers = itertools.count(1)  # what begins with a new one is in no cache

    async def know(self) -> None:
        """Both of the chat worker's places know the callers' history from now on."""
        await asyncio.gather(self._read(_history()), self._read(_history()))

    async def turn(self, speech: Samples) -> Turn:
        began_s = time.perf_counter()
        await self._ears.commit_ms(speech)
        text_s = time.perf_counter()
        asking = [*_history(), {"role": "user", "content": f"{next(self._numbers)} {llm.CALLER[0]}"}]
        token_s = audio_s = 0.0
        async with aclosing(self._answer(asking, TURN_TOKENS)) as answer:
            async for is_audio in answer:
                if is_audio:
                    audio_s = time.perf_counter()
                    break
                token_s = token_s or time.perf_counter()
        if not audio_s:
            raise StepFailed("an answer had no audio")
        return Turn(1000 * (text_s - began_s), 1000 * (token_s - text_s), 1000 * (audio_s - token_s))

    async def turn_alone(self, speech: Samples) -> Turn:
        await self._read(_history())  # it will be in the first place, which was the first caller's
        turn = await self.turn(speech)
        await self._idle()
        return turn

    async def turn_beside_answer(self, speech: Samples, offset_s: float) -> Turn:
        """The first caller hears the beginning of a long answer, while the rest is written and said."""
        is_heard = asyncio.Event()

        async def hear() -> None:
            asking = [*_history(), {"role": "user", "content": f"{next(self._numbers)} {llm.STORY}"}]
            async with aclosing(self._answer(asking, llm.STORY_TOKENS)) as answer:
                async for is_audio in answer:
                    if is_audio:
                        is_heard.set()

        return await self._turn_beside(hear(), is_heard, speech, offset_s)

    async def turn_beside_reading(self, speech: Samples, offset_s: float, priority: Priority) -> Turn:
        """The first caller has just called: its prompt is read ahead of its first words."""
        is_asked = asyncio.Event()
        is_asked.set()
        new = [{"role": "system", "content": f"{next(self._numbers):05d}"}, *_history()]
        return await self._turn_beside(self._read(new, priority), is_asked, speech, offset_s)

    async def _turn_beside(
        self, other: Coroutine[None, None, None], begun: asyncio.Event, speech: Samples, offset_s: float
    ) -> Turn:
        doing = asyncio.create_task(other)
        beginning = asyncio.create_task(begun.wait())
        try:
            await asyncio.wait([doing, beginning], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(offset_s)
            if doing.done():
                doing.result()
            return await self.turn(speech)
        finally:
            doing.cancel()
            beginning.cancel()
            await asyncio.wait([doing, beginning])
            await self._idle()

    async def _idle(self) -> None:
        for worker in (self._chat.worker, self._voice):
            await worker.until_idle(self._http)

    async def _read(self, messages: llm.Messages, priority: Priority = "committed") -> None:
        """Only read it, as an agent lets a chat worker do ahead of need."""
        hello = [*messages, {"role": "user", "content": "Hello."}]
        async with self._chat.asking(hello, 0, priority) as response:
            await response.read()

    async def _answer(self, messages: llm.Messages, tokens: int) -> AsyncGenerator[bool, None]:
        """Its text goes to the voice as it is written. Yields for each piece of it: True for audio, False for text."""
        signs: asyncio.Queue[bool | None] = asyncio.Queue()
        async with self._http.ws_connect(f"{self._voice.url}/tts/live") as socket:

            async def write() -> None:
                async with self._chat.asking(messages, tokens, repeat_penalty=1.0) as response:
                    async for chunk in llm.chunks(response):
                        if text := llm.text_of(chunk):
                            signs.put_nowait(False)
                            await socket.send_str(wire.TtsText(id=1, text=text).model_dump_json())
                await socket.send_str(wire.TtsEnd(id=1).model_dump_json())

            async def listen() -> None:
                async for reply in replies(socket):
                    if isinstance(reply, wire.TtsDone):
                        return
                    if isinstance(reply, wire.StreamError):
                        raise StepFailed(f"the voice failed: {reply.message}")
                    if not isinstance(reply, wire.TtsSegment):
                        signs.put_nowait(True)

            both = asyncio.gather(write(), listen())
            both.add_done_callback(lambda _: signs.put_nowait(None))
            try:
                while (sign := await signs.get()) is not None:
                    yield sign
                await both
            finally:
                both.cancel()
                await asyncio.gather(both, return_exceptions=True)


async def measure(rounds: int, model: str, folder: Path, on_round: Callable[[int], None]) -> Report:
    """On workers of its own: two for chat, which differ in this alone. Raises StepFailed."""
    spoken = np.concatenate([clip.samples for clip in stt.clips(folder)])
    given: dict[str, Any] = {"slots": 1, "direct_slots": 2}
    with tempfile.TemporaryDirectory(prefix="callbox-bench-") as place, RedisServer(Path(place)) as redis:

        def worker(role: str, **more: Any) -> Worker:
            return Worker(role, redis.url, Path(place), **given, **more)

        ears, voice, behind = worker("stt"), worker("tts"), worker("llm", llm_model=model)
        beside = worker("llm", llm_model=model, llm_niceness=0)
        timeout = aiohttp.ClientTimeout(TIMEOUT_S)
        async with ears, voice, behind, beside, aiohttp.ClientSession(timeout=timeout) as http:
            run = _Run({BEHIND: Box(http, ears, behind, voice), BESIDE: Box(http, ears, beside, voice)})
            await run.prepare()
            for number in range(rounds):
                at = number * STT_RATE_HZ % (len(spoken) - SPEECH_SAMPLES)
                await run.round(spoken[at : at + SPEECH_SAMPLES])
                on_round(1)
    return run.report(model, rounds)


class _Run:
    """Every round takes each figure once, in another order, so that whatever slows the machine down slows them all."""

    def __init__(self, boxes: dict[str, Box]) -> None:
        self._boxes = boxes
        self._turns: defaultdict[str, list[Turn]] = defaultdict(list)
        self._dice = random.Random(0)  # noqa: S311 - no secret

    async def prepare(self) -> None:
        for box in self._boxes.values():
            await box.know()

    async def round(self, speech: Samples) -> None:
        answer_s, reading_s = self._dice.uniform(0, LATEST_IN_ANSWER_S), self._dice.uniform(0, LATEST_IN_READING_S)
        turns: dict[str, Callable[[], Coroutine[None, None, Turn]]] = {}
        for how, box in self._boxes.items():
            turns[f"{ALONE}, {how}"] = partial(box.turn_alone, speech)
            turns[f"{ANSWER}, {how}"] = partial(box.turn_beside_answer, speech, answer_s)
            turns[f"{READ_AHEAD}, {how}"] = partial(box.turn_beside_reading, speech, reading_s, "speculative")
        as_committed = partial(self._boxes[BESIDE].turn_beside_reading, speech, reading_s, "committed")
        turns[f"{READ_AHEAD} as committed work, {BESIDE}"] = as_committed
        for name in self._dice.sample(list(turns), len(turns)):
            self._turns[name].append(await turns[name]())

    def report(self, model: str, rounds: int) -> Report:
        samples: dict[str, Summary] = {}
        for name, turns in sorted(self._turns.items()):
            samples[f"{name}: text"] = Summary.of(turn.text for turn in turns)
            samples[f"{name}: first audio"] = Summary.of(turn.whole for turn in turns)

        def gain(other: str, what: str) -> float:
            return samples[f"{other}, {BESIDE}: {what}"].median / samples[f"{other}, {BEHIND}: {what}"].median

        gains = {f"{other}: {what}": gain(other, what) for other in (ALONE, ANSWER, READ_AHEAD) for what in WHAT}
        committed, speculative = (
            samples[f"{READ_AHEAD}{how}, {BESIDE}: first audio"].median for how in (" as committed work", "")
        )
        return Report(
            "priorities: a caller's turn beside another call",
            facts={"model": model, "rounds": rounds, "speech": f"{SPEECH_S:g} s"},
            samples=samples,
            ratios={f"{name}, {BESIDE} to {BEHIND}": ratio for name, ratio in gains.items()}
            | {f"{READ_AHEAD}: first audio, as committed work to speculative": committed / speculative},
            bounds=[
                Bound(
                    f"{ANSWER}: text, {BESIDE} to {BEHIND}", gains[f"{ANSWER}: text"], LEAST_GAIN, "times", "at least"
                ),
                Bound(
                    f"{READ_AHEAD}: first audio, as committed work to speculative",
                    committed / speculative,
                    LEAST_GAIN,
                    "times",
                    "at least",
                ),
            ],
        )


def _history() -> llm.Messages:
    messages = [{"role": "system", "content": "You are a helpful assistant on the phone."}]
    for said, answered in llm.EXAMPLES:
        messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]
    return messages
