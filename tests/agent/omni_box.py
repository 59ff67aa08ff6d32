"""A box whose model hears: real processes without stt, nginx and supervisord; an upstream that checks what comes."""

import asyncio
import base64
import json
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from daemons import settings as settings_module
from daemons.agent.understanding import UNDERSTAND, WRITE_DOWN
from daemons.audio import Pcm, read_wav, to_float
from daemons.models import model_dir
from daemons.settings import ROOT
from daemons.stt.engines.moonshine import Moonshine
from daemons.stt.stop import Stop
from ops.caller import Utterance, synthesize
from ops.livekit_server import LiveKitServer
from ops.worker import Worker
from tests.llm.upstream_server import UpstreamServer, begin, end

ROLES = ("llm", "tts", "agent", "token")


@dataclass
class Received:
    """One request of a box that was about sound, decoded."""

    body: dict[str, Any]
    task: str  # answer, words or understanding
    words: str  # what Moonshine hears in its last sound
    pcm: Pcm
    sounds: int
    pictures: list[bytes] = field(default_factory=list)


class HearingServer(UpstreamServer):
    """Speaks OpenAI's protocol and really hears: Moonshine is its ear. It knows the capital of France."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[Received] = []
        settings = settings_module.load()
        self._ear = Moonshine(model_dir(settings, "moonshine-tiny-en"), 1)
        self._ear.load()

    async def answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        messages = body["messages"]
        parts = [part for each in messages if isinstance(each["content"], list) for part in each["content"]]
        sounds = [part["input_audio"] for part in parts if part["type"] == "input_audio"]
        last = messages[-1]["content"]
        if not sounds or isinstance(last, str):  # reading ahead, or the worker's first request
            return await self._say(request, "Hello.")
        assert all(sound["format"] == "wav" for sound in sounds)
        pcm = read_wav(base64.b64decode(sounds[-1]["data"], validate=True))
        words = await asyncio.to_thread(self._ear.transcribe, to_float(pcm.resampled(16_000).samples), Stop())
        pictures = [part["image_url"]["url"].partition("base64,")[2] for part in last if part["type"] == "image_url"]
        tasks = {WRITE_DOWN: "words", UNDERSTAND: "understanding"}
        task = next((tasks[part["text"]] for part in last if part["type"] == "text"), "answer")
        decoded = [base64.b64decode(picture, validate=True) for picture in pictures]
        self.received.append(Received(body, task, words, pcm, len(sounds), decoded))
        return await self._say(request, _answer(task, words))

    async def _say(self, request: web.Request, text: str) -> web.StreamResponse:
        response = await begin(request, [word + " " for word in text.split()])
        await end(response, {"prompt_tokens": 1, "completion_tokens": len(text.split())})
        return response


def _answer(task: str, words: str) -> str:
    if task == "words":
        return words
    if task == "understanding":
        known = {"language": "en", "intent": "to learn something", "emotion": "curious", "summary": "A question."}
        return json.dumps({"transcript": words, **known})
    return "The capital of France is Paris." if "france" in words.lower() else "I do not know."


class OmniBox:
    """Up inside the context. `model`: the settings of the one that hears."""

    def __init__(self, redis_url: str, folder: Path, **model: Any) -> None:
        self._livekit = LiveKitServer(folder)
        self._persona = folder / "persona.toml"
        given = {**self._livekit.settings, **model, "llm_omni": True, "persona": self._persona}
        given["token_secret"] = "signs calls"
        self._workers = {role: Worker(role, redis_url, folder, **given) for role in ROLES}
        self.write_persona()

    def write_persona(self, **changes: str) -> None:
        """The installed one with other values, as TOML spells them, from the next call on."""
        text = (ROOT / "etc/persona.toml").read_text(encoding="utf-8")
        for name, value in changes.items():
            text = re.sub(rf"(?m)^{name} = .*$", f"{name} = {value}", text)
        self._persona.write_text(text, encoding="utf-8")

    @property
    def url(self) -> str:
        """To dial."""
        return self._workers["token"].url

    async def says(self, words: str) -> Utterance:
        """By the box's own voice."""
        settings = settings_module.load().model_copy(update={"tts_port": self._workers["tts"].port})
        return await synthesize(settings, words)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.enter_context(self._livekit)
            starting = (stack.enter_async_context(worker) for worker in self._workers.values())
            for failure in await asyncio.gather(*starting, return_exceptions=True):
                if isinstance(failure, BaseException):
                    raise failure
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stack.aclose()
