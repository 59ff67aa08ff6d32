"""A chat model that hears (vLLM-Omni, this box's own LLM worker, …) writes down what is said."""

import asyncio
import base64
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np

from daemons import wire
from daemons.audio import STT_RATE_HZ, FloatSamples, Pcm, to_int16, wav_bytes
from daemons.errors import AtCapacity, BadRequest, CallboxError, ConfigurationError, Unavailable, in_words
from daemons.stt.asked import Asked
from daemons.stt.repeats import looping_tail
from daemons.upstream import TRANSPORT, Connection, read_body

log = logging.getLogger(__name__)

TASK = (
    "Write down word for word what is said in this recording, in the language in which it is said. "
    "Answer with those words alone. If nobody speaks, answer with nothing."
)
TOKENS_PER_S, TOKENS_AT_LEAST = 16, 32
WORDS = 300  # characters of an error that are passed on


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect_s: float = 2.0
    first_token_s: float = 10.0
    between_tokens_s: float = 5.0
    check_s: float = 2.0


class Omni:
    languages: tuple[str, ...] = ()
    longest_s = 28.0  # such models hear 30 s

    def __init__(self, url: str, *, model: str, api_key: str, timeouts: Timeouts | None = None) -> None:
        self.model = model
        self._timeouts = timeouts or Timeouts()
        self._connection = Connection(
            url,
            api_key=api_key,
            settings="CALLBOX_STT_OMNI",
            connect_s=self._timeouts.connect_s,
            check_s=self._timeouts.check_s,
        )

    async def load(self) -> None:
        """Wait for the upstream, however long it takes to load its own model; the runtime bounds that."""
        await self._connection.load(self._warm_up)

    async def _warm_up(self, listed: str) -> None:
        self.model = self.model or listed
        try:
            await self.transcribe(np.zeros(STT_RATE_HZ, np.float32), Asked())
        except BadRequest as error:
            raise ConfigurationError(
                f"{self._connection.url} does not transcribe with {self.model}: {error}; a model that hears is wanted: "
                "see CALLBOX_STT_OMNI_URL and _MODEL, and CALLBOX_LLM_OMNI where it is this box's own LLM worker"
            ) from error

    async def check(self) -> None:
        await self._connection.first_model()

    async def close(self) -> None:
        await self._connection.close()

    async def transcribe(self, samples: FloatSamples, asked: Asked) -> str:
        loop = asyncio.get_running_loop()
        answer = _Answer()
        headers: dict[str, str] = {wire.PRIORITY: asked.priority}
        try:
            async with (
                asyncio.timeout(self._timeouts.first_token_s) as limit,
                self._asking(request_body(self.model, samples, asked), headers) as response,
            ):
                async for line in response.content:
                    if answer.take(line):
                        limit.reschedule(loop.time() + self._timeouts.between_tokens_s)
                    if answer.is_looping:
                        return answer.text
        except TimeoutError:
            if answer.has_ended:
                return answer.text
            waited_s = self._timeouts.between_tokens_s if answer.words else self._timeouts.first_token_s
            where = "in the middle of its answer" if answer.words else "before its answer"
            raise Unavailable(f"the upstream said nothing for {waited_s:g} s {where}") from None
        except TRANSPORT as error:
            raise Unavailable(f"the upstream cannot be reached: {in_words(error)}") from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Unavailable(f"the upstream sent what is no answer: {error}") from error
        if not answer.has_ended:
            raise Unavailable("the upstream closed the stream before its answer had ended")
        return answer.text

    @asynccontextmanager
    async def _asking(self, body: dict[str, Any], headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        url = f"{self._connection.url}/chat/completions"
        async with self._connection.session.post(url, json=body, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                raise _as_error(response.status, await read_body(response))
            yield response


class _Answer:
    """What the stream amounts to."""

    def __init__(self) -> None:
        self.has_ended = False
        self.words = ""

    def take(self, line: bytes) -> bool:
        """Whether it brought words. Raises ValueError and its like for what is no chunk, CallboxError for an error."""
        data = line.removeprefix(b"data:").strip()
        if not data or not line.startswith(b"data:"):
            return False
        if data == b"[DONE]":
            self.has_ended = True
            return False
        chunk = json.loads(data)
        if chunk.get("error"):
            raise _as_error(500, data)
        said = ""
        for choice in chunk.get("choices") or []:
            said += (choice.get("delta") or {}).get("content") or ""
            self.has_ended = self.has_ended or bool(choice.get("finish_reason"))
        self.words += said
        return bool(said)

    @property
    def is_looping(self) -> bool:
        return looping_tail(self.words.split()) > 0

    @property
    def text(self) -> str:
        words = self.words.split()
        while looped := looping_tail(words):
            del words[-looped:]
        said = " ".join(words)
        if re.fullmatch(r"\[[^]]*\]|\([^)]*\)", said):  # [silence], (no speech)
            return ""
        return said[1:-1] if re.fullmatch(r'"[^"]*"', said) else said


def request_body(model: str, samples: FloatSamples, asked: Asked) -> dict[str, Any]:
    """A chat with the recording, 16-bit WAV at 16 kHz, and what is to be done with it."""
    wav = wav_bytes(Pcm(to_int16(samples), STT_RATE_HZ))
    task = TASK
    if asked.language:
        task += f" The language has the code {asked.language}."
    if asked.prompt:
        task += f" These words may help with names and spelling: {asked.prompt}"
    return {
        "model": model,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav).decode(), "format": "wav"}},
                    {"type": "text", "text": task},
                ],
            }
        ],
        "temperature": 0,
        "max_tokens": TOKENS_AT_LEAST + int(len(samples) / STT_RATE_HZ * TOKENS_PER_S),
        "modalities": ["text"],  # vLLM-Omni would say the words too, and send that as its text in base64
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _as_error(status: int, body: bytes) -> CallboxError:
    said = f"{_words(body) or 'without a reason'} (status {status})"
    if status in (401, 403):
        return Unavailable(f"the upstream refuses this box's key: {said}")
    if status in (429, 503):
        return AtCapacity(f"the upstream is full: {said}")
    if status >= 500 or status in (408, 425):
        return Unavailable(f"the upstream failed: {said}")
    if status >= 400:
        return BadRequest(f"the upstream refuses this: {said}")
    return Unavailable(f"the upstream sends us elsewhere: {said}")


def _words(body: bytes) -> str:
    """The sentence of an error in OpenAI's shape, or the beginning of what came instead."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)[:WORDS]
    except (ValueError, LookupError, TypeError):
        return body.decode(errors="replace")[:WORDS].strip()
