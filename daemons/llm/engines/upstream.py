"""Any OpenAI-compatible server (vLLM, vLLM-Omni, SGLang, another Callbox): asked, streamed through, watched."""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CollectorRegistry, Counter

from daemons.errors import AtCapacity, BadRequest, CallboxError, ConfigurationError, Unavailable, in_words
from daemons.llm.generation import (
    TEXT_ONLY,
    WARM_UP,
    Audio,
    ChatMessage,
    Generated,
    Generation,
    Image,
    Modality,
    Part,
)
from daemons.upstream import TRANSPORT, Connection, read_body

log = logging.getLogger(__name__)

BACK_OFF_S = (0.2, 0.4, 0.8)
JITTER = (0.8, 1.2)
WORDS = 300  # characters of an error's body that is no JSON
PIECE_CHARS = 256  # that one token may have: who sends more than max_tokens of them does not stop by itself


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect_s: float = 2.0
    first_token_s: float = 12.0  # retries included; the agent gives an answer up after 15 s
    between_tokens_s: float = 10.0
    check_s: float = 2.0


class _TryAgain(Exception):
    """The upstream failed in a way that may pass; `error` is what the client is told when it does not."""

    def __init__(self, error: CallboxError, after_s: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_s = after_s


class Upstream:
    shares_compute = False  # it schedules its requests itself

    def __init__(
        self,
        url: str,
        *,
        model: str,
        api_key: str,
        takes: frozenset[Modality],
        metrics: CollectorRegistry,
        timeouts: Timeouts | None = None,
    ) -> None:
        self.model = model
        self.takes = takes
        self._timeouts = timeouts or Timeouts()
        self._connection = Connection(
            url,
            api_key=api_key,
            settings="CALLBOX_LLM_UPSTREAM",
            connect_s=self._timeouts.connect_s,
            check_s=self._timeouts.check_s,
        )
        self._retries = Counter(
            "callbox_llm_upstream_retries_total", "Requests asked of the upstream once more", registry=metrics
        )

    async def load(self) -> None:
        """Wait for the upstream, however long it takes to load its own model; the runtime bounds that."""
        await self._connection.load(self._warm_up)

    async def _warm_up(self, listed: str) -> None:
        self.model = self.model or listed
        try:
            await self.generate(0, WARM_UP, lambda _: None)
        except BadRequest as error:
            raise ConfigurationError(f"CALLBOX_LLM_UPSTREAM_MODEL={self.model}: {error}") from error

    async def check(self) -> None:
        await self._connection.first_model()

    async def close(self) -> None:
        await self._connection.close()

    async def generate(self, slot: int, generation: Generation, emit: Callable[[str], None]) -> Generated:
        body = request_body(self.model, generation)
        if self.takes != TEXT_ONLY:
            body["modalities"] = ["text"]  # vLLM-Omni would say the answer too, and send that as its text in base64
        answer = _Answer(emit, silent=generation.max_tokens == 0, max_chars=PIECE_CHARS * body["max_tokens"])
        try:
            async with asyncio.timeout(self._timeouts.first_token_s) as limit:
                await self._ask_patiently(body, answer, limit)
        except TimeoutError:
            if answer.has_begun:
                waited_s = self._timeouts.between_tokens_s
                raise Unavailable(f"the upstream stopped in the middle and said nothing for {waited_s:g} s") from None
            raise Unavailable(f"the upstream began no answer within {self._timeouts.first_token_s:g} s") from None
        return answer.ended()

    async def _ask_patiently(self, body: dict[str, Any], answer: "_Answer", limit: asyncio.Timeout) -> None:
        """Ask, and ask again while the answer has not begun."""
        for back_off_s in (*BACK_OFF_S, None):
            try:
                await self._ask(body, answer, limit)
                return
            except _TryAgain as failure:
                if answer.has_begun or back_off_s is None:
                    raise failure.error from failure
                pause_s = max(failure.after_s, back_off_s * random.uniform(*JITTER))  # noqa: S311 - no secret
                if pause_s > (limit.when() or 0.0) - asyncio.get_running_loop().time():
                    raise failure.error from failure
                log.warning("asking again in %.1f s: %s", pause_s, failure.error)
                self._retries.inc()
                await asyncio.sleep(pause_s)

    async def _ask(self, body: dict[str, Any], answer: "_Answer", limit: asyncio.Timeout) -> None:
        """One request. Raises _TryAgain, BadRequest or Unavailable; whatever ends it early closes its connection."""
        loop = asyncio.get_running_loop()
        try:
            async with self._connection.session.post(
                f"{self._connection.url}/chat/completions", json=body, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise await _refusal(response)
                async for line in response.content:
                    data = line.removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        break
                    if data and line.startswith(b"data:") and answer.take(_chunk(data)):
                        limit.reschedule(loop.time() + self._timeouts.between_tokens_s)
        except TRANSPORT as error:
            raise _TryAgain(Unavailable(f"the upstream cannot be reached: {in_words(error)}")) from error
        except (ValueError, LookupError, TypeError, AttributeError, HttpProcessingError) as error:
            raise _TryAgain(Unavailable(f"the upstream sent what is no answer: {error}")) from error
        if not answer.has_ended:
            raise _TryAgain(Unavailable("the upstream closed the stream before its answer had ended"))


class _Answer:
    """What the chunks amount to."""

    def __init__(self, emit: Callable[[str], None], *, silent: bool, max_chars: int) -> None:
        self._emit = emit
        self._silent = silent
        self._left_chars = max_chars
        self._reason: str | None = None
        self._usage: dict[str, Any] = {}
        self._pieces = 0

    @property
    def has_begun(self) -> bool:
        return self._pieces > 0

    @property
    def has_ended(self) -> bool:
        return self._reason is not None

    def take(self, chunk: dict[str, Any]) -> bool:
        """Whether it brought text. Raises Unavailable for an answer without an end."""
        self._usage = chunk.get("usage") or self._usage
        text = ""
        for choice in chunk.get("choices") or []:
            self._reason = choice.get("finish_reason") or self._reason
            text += (choice.get("delta") or {}).get("content") or ""
        if not text:
            return False
        self._left_chars -= len(text)
        if self._left_chars < 0:
            raise Unavailable("the upstream does not stop")
        self._pieces += 1
        self._emit("" if self._silent else text)
        return True

    def ended(self) -> Generated:
        details = self._usage.get("prompt_tokens_details") or {}
        return Generated(
            reason="length" if self._reason == "length" else "stop",
            prompt_tokens=int(self._usage.get("prompt_tokens") or 0),
            # One that tells no usage sends a token at a time, mostly.
            completion_tokens=0 if self._silent else int(self._usage.get("completion_tokens") or self._pieces),
            cached_tokens=int(details.get("cached_tokens") or 0),
        )


def request_body(model: str, generation: Generation) -> dict[str, Any]:
    """What is asked, without what the client left open: some servers refuse fields that they do not know."""
    optional = {
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "repetition_penalty": generation.repeat_penalty,  # as vLLM and SGLang call it
        "presence_penalty": generation.presence_penalty or None,
        "frequency_penalty": generation.frequency_penalty or None,
        "stop": list(generation.stop) or None,
        "seed": generation.seed,
    }
    return {
        "model": model,
        "messages": [{"role": message.role, "content": _content(message)} for message in generation.messages],
        "max_tokens": max(1, generation.max_tokens),
        "stream": True,
        "stream_options": {"include_usage": True},
        **{name: value for name, value in optional.items() if value is not None},
    }


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    if all(isinstance(part, str) for part in message.parts):
        return message.text
    return [_part(part) for part in message.parts]


def _part(part: Part) -> dict[str, Any]:
    match part:
        case Audio():
            return {"type": "input_audio", "input_audio": {"data": part.base64, "format": part.format}}
        case Image():
            return {"type": "image_url", "image_url": {"url": part.url}}
        case _:
            return {"type": "text", "text": part}


def _chunk(data: bytes) -> dict[str, Any]:
    """Raises ValueError for what is none, and what an error chunk says."""
    chunk = json.loads(data)
    if not isinstance(chunk, dict):
        raise ValueError(f"{data[:WORDS]!r}")
    if error := chunk.get("error"):
        words = _words(chunk) or str(error)
        code = error.get("code") if isinstance(error, dict) else None
        raise _as_error(code if isinstance(code, int) else 500, words, 0.0)
    return chunk


async def _refusal(response: aiohttp.ClientResponse) -> Exception:
    body = await read_body(response)
    try:
        words = _words(json.loads(body))
    except ValueError:
        words = ""
    return _as_error(
        response.status,
        words or body.decode(errors="replace")[:WORDS].strip(),
        _seconds(response.headers.get("Retry-After", "")),
    )


def _as_error(status: int, words: str, after_s: float) -> Exception:
    said = f"{words or 'without a reason'} (status {status})"
    if status in (401, 403):
        return Unavailable(f"the upstream refuses this box's key: {said}")
    if status == 429:
        return _TryAgain(AtCapacity(f"the upstream is full: {said}"), after_s)
    if status >= 500 or status in (408, 425):
        return _TryAgain(Unavailable(f"the upstream failed: {said}"), after_s)
    if status >= 400:
        return BadRequest(f"the upstream refuses this: {said}")
    return Unavailable(f"the upstream sends us elsewhere: {said}")


def _words(body: Any) -> str:
    """The sentence of an error in OpenAI's shape, or in one of its relatives'."""
    if isinstance(body, dict):
        for name in ("error", "message", "detail"):
            if found := body.get(name):
                return found if isinstance(found, str) else _words(found) or json.dumps(found)[:WORDS]
    return ""


def _seconds(retry_after: str) -> float:
    """Of Retry-After, which is seconds or a date; 0 when it is neither."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
