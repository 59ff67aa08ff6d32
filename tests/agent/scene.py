"""A conversation on a virtual time line: a caller with a script, workers that take their time, die and hang.

The caller's words are carried by the sound itself: a stretch of samples of one value is one line of the script, and
whoever transcribes it reads it back; so is what the agent says, one value for each segment.
"""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from daemons import wire
from daemons.agent import persona
from daemons.agent.conversation import Conversation
from daemons.agent.hearing import Hearing
from daemons.agent.metrics import Metrics
from daemons.agent.peers import NobodyServes
from daemons.agent.said import Content
from daemons.agent.understanding import UNDERSTAND, WRITE_DOWN
from daemons.audio import FRAME_MS, STT_RATE_HZ, TTS_RATE_HZ, FloatSamples, Samples, read_wav
from daemons.clock import FakeClock
from daemons.errors import BadRequest, Unavailable
from daemons.settings import ROOT
from daemons.wire import Priority, TtsSegment

CHUNK_MS = 20
STT_S, VOICE_S, FIRST_TOKEN_S, TOKEN_S, TTS_S = 0.06, 0.08, 0.1, 0.02, 0.04
CHAR_S = 0.06  # of speech
NOISE = 900  # a sound without words; words are above it


class Script:
    """Lines, each with a sample value of its own."""

    def __init__(self) -> None:
        self._lines = [""] * (NOISE + 1)

    def value(self, line: str) -> int:
        self._lines.append(line)
        return len(self._lines) - 1

    def line(self, value: int) -> str:
        return self._lines[value] if value < len(self._lines) else ""

    def words(self, samples: Samples) -> str:
        """What is said in them."""
        values = [int(value) for value in np.abs(samples) if value > NOISE]
        return " ".join(self.line(value) for value in dict.fromkeys(values))


class Workers:
    """`answers`: what the model writes to a text that holds the key. While a role is in `gone` its workers fail, in
    `hung` they do not answer, in `hopeless` no other can be had. `log`: (when, in ms, which work of what priority).
    `read`: (when, in ms, the last message that was read ahead). `asked` are the requests for answers, `asked_aside`
    those about what the caller said: these take `aside_s` longer, fail while `aside_fails`, and are answered with what
    is no JSON while the model `mumbles`.
    """

    def __init__(self, clock: FakeClock, script: Script) -> None:
        self.answers: dict[str, str] = {}
        self.gone: set[str] = set()
        self.hung: set[str] = set()
        self.hopeless: set[str] = set()
        self.log: list[tuple[float, str]] = []
        self.at_work: set[str] = set()
        self.asked: list[dict[str, Any]] = []
        self.read: list[tuple[float, str]] = []
        self.kept_ms: list[float] = []
        self.asked_aside: list[dict[str, Any]] = []
        self.aside_s = 0.0
        self.aside_fails = False
        self.refuses_pictures = False
        self.mumbles = False
        self._clock = clock
        self._script = script

    async def transcribe(self, samples: Samples, priority: Priority = "committed") -> wire.SttFinal:
        await self._take("stt", STT_S, priority)
        text = self._script.words(samples)
        return wire.SttFinal(utterance=0, id=0, text=text, audio_ms=len(samples) / 16, compute_ms=STT_S * 1000)

    async def chat(self, body: dict[str, Any], priority: Priority) -> AsyncGenerator[str, None]:
        last = body["messages"][-1]["content"]
        text = self.text(last)
        tasks = [part["text"] for part in last if part["type"] == "text"] if isinstance(last, list) else [last]
        understands = tasks[:1] == [UNDERSTAND] or tasks[:1] == [f"{text}\n{UNDERSTAND}"]
        if understands or tasks == [WRITE_DOWN]:
            self.asked_aside.append(body)
            answer = self._aside(text, understands=understands)
            await self._clock.sleep(self.aside_s)
            if self.aside_fails:
                raise Unavailable("the model has no time")
        else:
            self.asked.append(body)
            if self.refuses_pictures and "image_url" in json.dumps(last):
                raise BadRequest("at most 0 images may be shown")
            answer = next((answer for key, answer in self.answers.items() if key in text), f"You said {text}.")
        await self._take("llm", FIRST_TOKEN_S, priority)
        for word in answer.split():
            await self._take("llm", TOKEN_S, priority)
            yield word + " "

    def text(self, content: Content) -> str:
        """What a message says, to who hears."""
        if isinstance(content, str):
            return content.removesuffix(f"\n{UNDERSTAND}")
        sounds = [part["input_audio"]["data"] for part in content if part["type"] == "input_audio"]
        return " ".join(self._script.words(read_wav(base64.b64decode(sound)).samples) for sound in sounds)

    def _aside(self, text: str, *, understands: bool) -> str:
        if not understands:
            return text
        fields = {"language": "en", "intent": "to ask", "emotion": "calm", "summary": f"They said: {text}"}
        return "Well, {" if self.mumbles else f"```json\n{json.dumps({'transcript': text, **fields})}\n```"

    async def speech(self, priority: Priority, kept_as: str | None) -> "Speech":
        return Speech(self, self._script, priority)

    async def read_ahead(self, body: dict[str, Any]) -> None:
        self.read.append((self._clock.now_ns() / 1e6, body["messages"][-1]["content"]))

    async def keep_answer(self) -> None:
        self.kept_ms.append(self._clock.now_ns() / 1e6)

    async def render(self, text: str) -> Samples:
        await self._take("tts", TTS_S, "speculative")
        return spoken(self._script, text)

    async def _take(self, role: str, seconds: float, priority: Priority) -> None:
        """Work for so long, or fail as a worker of this role does now. Committed work waits for a worker that hangs."""
        self.log.append((self._clock.now_ns() / 1e6, f"{role} {priority}"))
        self.at_work.add(role)
        try:
            await self._clock.sleep(seconds)
            if role in self.hopeless:
                raise NobodyServes(role)
            if role in self.gone:
                raise Unavailable(f"{role} is gone")
            while role in self.hung:
                await self._clock.sleep(0.1)
        finally:
            self.at_work.discard(role)


def spoken(script: Script, text: str) -> Samples:
    return np.full(round(len(text) * CHAR_S * TTS_RATE_HZ), script.value(text), np.int16)


class Speech:
    """Sentence by sentence."""

    def __init__(self, workers: Workers, script: Script, priority: Priority) -> None:
        self._workers = workers
        self._script = script
        self._priority = priority
        self._text: asyncio.Queue[str | None] = asyncio.Queue()

    async def write(self, text: str) -> None:
        self._text.put_nowait(text)

    async def end(self) -> None:
        self._text.put_nowait(None)

    async def commit(self) -> None:
        self._priority = "committed"

    async def cancel(self) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[TtsSegment | Samples]:
        text, sent = "", 0
        while (piece := await self._text.get()) is not None or text:
            text += piece or ""
            if piece is not None and not text.rstrip().endswith((".", "?", "!")):
                continue
            await self._workers._take("tts", TTS_S, self._priority)
            samples = spoken(self._script, text.strip())
            yield TtsSegment(id=0, text=text.strip(), from_sample=sent, samples=len(samples))
            yield samples
            text, sent = "", sent + len(samples)
            if piece is None:
                return


class Page:
    """A sink on the virtual time line; what the caller hears and reads."""

    def __init__(self, clock: FakeClock, script: Script) -> None:
        self._clock = clock
        self._script = script
        self._empty_at_ms = 0.0
        self.frames: list[tuple[float, int]] = []  # when it is heard, in ms, and its value
        self.states: list[wire.AgentState] = []
        self.captions: dict[str, str] = {}
        self.picture_url: str | None = None

    async def play(self, samples: Samples) -> None:
        at_ms = max(self._empty_at_ms, self._clock.now_ns() / 1e6)
        self.frames.append((at_ms, int(samples[0])))
        self._empty_at_ms = at_ms + FRAME_MS

    def clear(self, unsent_samples: int) -> None:
        now_ms = self._clock.now_ns() / 1e6
        self.frames = [(at_ms, value) for at_ms, value in self.frames if at_ms <= now_ms]
        self._empty_at_ms = min(self._empty_at_ms, now_ms)

    def tell_state(self, state: wire.AgentState) -> None:
        self.states.append(state)

    def caption(self, text: str, *, segment: str, caller: bool, final: bool) -> None:
        self.captions[segment] = text

    def kept_as(self, generation: int) -> str | None:
        return None

    async def picture(self) -> str | None:
        return self.picture_url

    def heard(self, since_ms: float = 0.0) -> list[str]:
        """The lines that were heard, at least in part, in order."""
        lines = [self._script.line(value) for at_ms, value in self.frames if at_ms >= since_ms]
        return [line for index, line in enumerate(lines) if line and (index == 0 or lines[index - 1] != line)]

    def times_ms(self, value: int, since_ms: float = 0.0) -> list[float]:
        """When a sound of this value was heard."""
        return [at_ms for at_ms, heard in self.frames if heard == value and at_ms >= since_ms]

    def silences_ms(self, since_ms: float, until_ms: float) -> list[float]:
        """How long each stretch without sound was."""
        times = [since_ms, *(at_ms for at_ms, _ in self.frames if since_ms <= at_ms < until_ms), until_ms]
        return [later - earlier - FRAME_MS for earlier, later in itertools.pairwise(times)]


class Scene:
    """Use it as a context; times are virtual."""

    def __init__(
        self, voice: float | None = None, *, omni: bool = False, sounds: persona.Sounds | None = None, **turns: Any
    ) -> None:
        """`voice`: how complete it sounds at every pause. `omni`: the model hears. Else other than the persona's."""
        self.clock = FakeClock(start_ns=1_000_000_000)
        self.script = Script()
        self._random = np.random.default_rng(0)
        self.workers = Workers(self.clock, self.script)
        self.page = Page(self.clock, self.script)
        self.events: list[dict[str, Any]] = []
        self.given_up: list[str] = []
        self._registry = CollectorRegistry()
        self._tasks: set[asyncio.Task[None]] = set()
        installed = persona.load(ROOT / "etc/persona.toml")
        given = {"shortest_ms": 480, "longest_ms": 480, **turns}
        self.persona = installed.model_copy(
            update={"turns": persona.Turns(**given), "sounds": sounds or installed.sounds}
        )
        self.conversation = Conversation(
            persona=self.persona,
            llm_model="model",
            omni=omni,
            workers=self.workers,
            hearing=Hearing(_is_loud, self.clock),
            listener=Voice(self.clock, voice) if voice is not None else None,
            page=self.page,
            emit=self._emit,
            clock=self.clock,
            phrases={},
            spawn=self._spawn,
            give_up=self.given_up.append,
            metrics=Metrics(self._registry),
        )

    async def __aenter__(self) -> "Scene":
        self._spawn(self.conversation.run())
        await self.pauses(0.1)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.conversation.end()
        await self.clock.advance(1)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def now_ms(self) -> float:
        return self.clock.now_ns() / 1e6

    async def greets(self) -> None:
        """The agent greets, and has its phrases ready."""
        self.conversation.announce(self.persona.greeting)
        await self.pauses(10)

    async def says(self, line: str, seconds: float = 1.0) -> float:
        """The caller says `line`; returns when that ended, in ms."""
        await self._sounds(self.script.value(line), seconds)
        return self.now_ms

    async def coughs(self, seconds: float = 0.15) -> None:
        await self._sounds(NOISE, seconds)

    async def pauses(self, seconds: float) -> None:
        await self._sounds(0, seconds)

    def heard(self, since_ms: float = 0.0) -> list[str]:
        return self.page.heard(since_ms)

    def when(self, event: str, since_ms: float = 0.0) -> float:
        """The first such event from then on, in ms."""
        return next(float(each["t_ms"]) for each in self.events if each["event"] == event and each["t_ms"] >= since_ms)

    def count(self, outcome: str) -> float:
        """Of replies that were prepared early."""
        return self._registry.get_sample_value("callbox_speculations_total", {"outcome": outcome}) or 0.0

    def notes(self, outcome: str) -> float:
        """Of what was learned of the caller's turns besides."""
        return self._registry.get_sample_value("callbox_notes_total", {"outcome": outcome}) or 0.0

    async def _sounds(self, value: int, seconds: float) -> None:
        for _ in range(round(seconds * 1000 / CHUNK_MS)):
            await self.clock.advance(CHUNK_MS / 1000)
            signs = self._random.choice((-1, 1), STT_RATE_HZ * CHUNK_MS // 1000)  # it resembles nothing that is played
            self.conversation.hear((value * signs).astype(np.int16))
            self.conversation.tick()
        await self.clock.advance(0)

    def _emit(self, event: str, *, at_ns: int | None = None, **data: Any) -> None:
        self.events.append({"event": event, "t_ms": (self.clock.now_ns() if at_ns is None else at_ns) / 1e6, **data})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Voice:
    """Says how complete every utterance sounds."""

    def __init__(self, clock: FakeClock, probability: float) -> None:
        self._clock = clock
        self._probability = probability

    async def probability(self, utterance: Samples) -> float | None:
        await self._clock.sleep(VOICE_S)
        return self._probability


def _is_loud(window: FloatSamples) -> float:
    return float(np.abs(window).max() > 0.01)
