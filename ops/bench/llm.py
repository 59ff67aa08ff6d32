"""What a chat worker's answers cost: first tokens with and without the prompt cache, rates, priorities, cancels."""

import asyncio
import contextlib
import itertools
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from daemons import wire
from daemons.wire import Priority
from ops.figures import Bound, Report, Summary
from ops.redis_server import RedisServer
from ops.run import StepFailed
from ops.worker import Worker

ANSWER_TOKENS = 24
GROWING_TURNS = 10
STORY_TOKENS = 400
LONG_WORDS = 400
TIMEOUT_S = 120.0
READING_S = 0.1
LEAST_CACHED = 0.95  # of the first turn's prompt, in the second turn
LEAST_CACHE_GAIN = 1.5
LEAST_PRIORITY_GAIN = 1.0
STOP_LIMIT_MS = 1500.0  # a batch of 64 tokens of a prompt takes 0.3 s on two cores with the default model

EXAMPLES = (
    ("Hi there, how are you?", "I'm doing well, thank you. How can I help you today?"),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Can you recommend something for dinner?", "How about pasta with tomatoes and basil? It is quick and tasty."),
)
CALLER = (
    "I would like to go somewhere warm next month. Where should I go?",
    "And how long does it take to get there from London?",
    "What should I take with me?",
    "Is it expensive there?",
    "What is the food like?",
)
STORY = "Write a very long story about a dragon and a village."

Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    first_ms: float
    tokens_per_s: float
    prompt_tokens: int
    cached_tokens: int


class Caller:
    """Asks one worker."""

    def __init__(self, worker: Worker, http: aiohttp.ClientSession) -> None:
        self.worker = worker
        self.http = http

    @contextlib.asynccontextmanager
    async def asking(
        self, messages: Messages, max_tokens: int, priority: Priority = "committed", **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        body = {
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **more,
        }
        url = f"{self.worker.url}/v1/chat/completions"
        async with self.http.post(url, json=body, headers={wire.PRIORITY: priority}) as response:
            if response.status != 200:
                raise StepFailed(f"the worker answered {response.status}: {await response.text()}")
            yield response

    async def ask(self, messages: Messages, max_tokens: int = ANSWER_TOKENS) -> Answer:
        began_s, first_s, text = time.perf_counter(), 0.0, ""
        usage: dict[str, Any] = {}
        async with self.asking(messages, max_tokens) as response:
            async for chunk in chunks(response):
                usage = chunk.get("usage") or usage
                if piece := text_of(chunk):
                    first_s = first_s or time.perf_counter()
                    text += piece
        if not text:
            raise StepFailed(f"the model said nothing to: {messages[-1]['content']}")
        written = usage["completion_tokens"] - 1
        return Answer(
            text,
            (first_s - began_s) * 1000,
            written / (time.perf_counter() - first_s) if written else 0.0,
            usage["prompt_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"],
        )

    async def stopped_after_ms(self, messages: Messages, *, reading: bool) -> float:
        """From a client's close to the end of its work; it closes when the answer begins, or while it is `reading`."""
        if reading:
            asking = asyncio.create_task(self._hold(messages))
            await self.worker.until_busy(self.http)
            await asyncio.sleep(READING_S)
            closed_s = time.perf_counter()
            asking.cancel()
            await asyncio.wait([asking])
        else:
            async with self.asking(messages, STORY_TOKENS, repeat_penalty=1.0) as response:
                await until_text(response)
                closed_s = time.perf_counter()
                response.close()
        await self.worker.until_idle(self.http)
        return (time.perf_counter() - closed_s) * 1000

    async def first_beside_ms(self, guess: Messages, messages: Messages, priority: Priority) -> float:
        """The first token of an answer while another one is under way, which has been asked for with `priority`."""
        guessing = asyncio.create_task(self._hold(guess, priority))
        await self.worker.until_busy(self.http)
        try:
            return (await self.ask(messages, 1)).first_ms
        finally:
            guessing.cancel()
            await asyncio.wait([guessing])
            await self.worker.until_idle(self.http)

    async def _hold(self, messages: Messages, priority: Priority = "committed") -> None:
        async with self.asking(messages, STORY_TOKENS, priority, repeat_penalty=1.0) as response:
            async for _ in response.content:
                pass


async def measure(rounds: int, model: str, on_round: Callable[[int], None]) -> Report:
    """On a worker of its own. Raises StepFailed."""
    timeout = aiohttp.ClientTimeout(TIMEOUT_S)
    with tempfile.TemporaryDirectory(prefix="callbox-bench-") as folder, RedisServer(Path(folder)) as redis:
        given = {"llm_model": model, "slots": 1, "direct_slots": 2}
        worker = Worker("llm", redis.url, Path(folder), **given)
        async with worker, aiohttp.ClientSession(timeout=timeout) as http:
            run = _Run(Caller(worker, http))
            for _ in range(rounds):
                await run.round()
                on_round(1)
            await run.growing_history()
    return run.report(model, rounds)


class _Run:
    """Every round takes each figure once, so that whatever slows the machine down slows them all."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._numbers = itertools.count(1)
        self._ms: defaultdict[str, list[float]] = defaultdict(list)
        self._rates: defaultdict[str, list[float]] = defaultdict(list)
        self._read: defaultdict[str, list[int]] = defaultdict(list)  # tokens that were in no cache
        self._cached_shares: list[float] = []
        self._growing: list[Answer] = []

    async def round(self) -> None:
        await self._second_turn()
        await self._two_at_once()
        await self._beside_a_guess()
        for name, words, reading in (("writes", STORY, False), ("reads", "word " * LONG_WORDS, True)):
            stopped_ms = await self._caller.stopped_after_ms(self._conversation(words), reading=reading)
            self._ms[f"client closed → work stopped, while it {name}"].append(stopped_ms)

    async def growing_history(self) -> None:
        messages = self._conversation(CALLER[0])
        for turn in range(1, GROWING_TURNS + 1):
            answer = await self._caller.ask(messages)
            self._growing.append(answer)
            messages = then(messages, answer.text, CALLER[turn % len(CALLER)])

    async def _second_turn(self) -> None:
        caller = self._caller
        first = self._conversation(CALLER[0])
        cold = await caller.ask(first)
        second = then(first, cold.text, CALLER[1])
        cached = await caller.ask(second)
        await caller.ask(self._conversation(CALLER[2]), 1)  # another call in the same slot
        uncached = await caller.ask(second)
        self._ms["first turn"].append(cold.first_ms)
        self._ms["second turn, cached"].append(cached.first_ms)
        self._ms["second turn, not cached"].append(uncached.first_ms)
        self._rates["one answer"].append(uncached.tokens_per_s)
        self._cached_shares.append(cached.cached_tokens / cold.prompt_tokens)
        self._read["second turn, cached"].append(cached.prompt_tokens - cached.cached_tokens)
        self._read["second turn, not cached"].append(uncached.prompt_tokens - uncached.cached_tokens)

    async def _two_at_once(self) -> None:
        two = [self._conversation(CALLER[0]) for _ in range(2)]
        for answer in await asyncio.gather(*(self._caller.ask(messages) for messages in two)):
            self._ms["first turn, two at once"].append(answer.first_ms)
            self._rates["each of two at once"].append(answer.tokens_per_s)

    async def _beside_a_guess(self) -> None:
        names: tuple[tuple[str, Priority], ...] = (("makes way", "speculative"), ("does not", "committed"))
        for name, priority in names:
            guess, messages = self._conversation("word " * LONG_WORDS), self._conversation(CALLER[0])
            beside_ms = await self._caller.first_beside_ms(guess, messages, priority)
            self._ms[f"first turn, beside a guess that {name}"].append(beside_ms)

    def _conversation(self, words: str) -> Messages:
        """A call's first turn. Its first word is no other call's, so nothing of it is in a cache."""
        system = "You are a helpful assistant on the phone. Answer in one or two short sentences."
        messages = [{"role": "system", "content": f"{next(self._numbers):05d} {system}"}]
        for said, answered in EXAMPLES:
            messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]
        return [*messages, {"role": "user", "content": words}]

    def report(self, model: str, rounds: int) -> Report:
        samples = {name: Summary.of(ms) for name, ms in self._ms.items()}
        last = self._growing[-1]
        samples["later turns of a growing history"] = Summary.of(answer.first_ms for answer in self._growing[1:])
        cache_gain = samples["second turn, not cached"].median / samples["second turn, cached"].median
        beside = "first turn, beside a guess that"
        priority_gain = samples[f"{beside} does not"].median / samples[f"{beside} makes way"].median
        stops = (f"client closed → work stopped, while it {does}" for does in ("writes", "reads"))
        return Report(
            "llm: first tokens, rates and cancels",
            facts={"model": model, "rounds": rounds, "answers": f"{ANSWER_TOKENS} tokens", "turns": GROWING_TURNS},
            samples=samples,
            counts={f"tokens to read, {name} (median)": statistics.median(read) for name, read in self._read.items()}
            | {f"tokens a second, {name} (median)": statistics.median(rates) for name, rates in self._rates.items()}
            | {"prompt tokens of the last turn": last.prompt_tokens, "of which were cached": last.cached_tokens},
            ratios={
                "second turn, not cached to cached": cache_gain,
                "beside a guess that does not make way to one that does": priority_gain,
            },
            bounds=[
                Bound(
                    "least of a first turn in the cache", min(self._cached_shares), LEAST_CACHED, "of it", "at least"
                ),
                Bound("second turn, not cached to cached", cache_gain, LEAST_CACHE_GAIN, "times", "at least"),
                Bound("what making way gains", priority_gain, LEAST_PRIORITY_GAIN, "times", "at least"),
                *(Bound(name, samples[name].p95_or_max, STOP_LIMIT_MS, "ms") for name in stops),
            ],
        )


def then(messages: Messages, answered: str, said: str) -> Messages:
    return [*messages, {"role": "assistant", "content": answered}, {"role": "user", "content": said}]


async def chunks(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """Raises StepFailed for an error in the stream."""
    async for line in response.content:
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise StepFailed(f"the worker ended its answer: {chunk['error']['message']}")
            yield chunk


def text_of(chunk: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])


async def until_text(response: aiohttp.ClientResponse) -> None:
    async for chunk in chunks(response):
        if text_of(chunk):
            return
