"""llama.cpp in this process: its server's queue and slots, driven without its HTTP."""

import tempfile
from pathlib import Path
from typing import Any

import xllamacpp

from daemons.errors import BadRequest, ConfigurationError, Unavailable
from daemons.llm.generation import DEFAULT_REPEAT_PENALTY, DEFAULT_TEMPERATURE, TEXT_ONLY, Generated, Generation
from daemons.llm.threaded import Emit

# How much of a prompt is read at once, and so how long a cancel may wait: 0.5 s of a 0.5 B model on two slow cores.
# Half of it is 10 % slower; four times as much gains 6 %.
BATCH_TOKENS = 64
ERRORS_ONLY = 1


class LlamaCpp:
    takes = TEXT_ONLY

    def __init__(self, gguf: Path, *, slots: int, context_tokens: int, threads: int) -> None:
        self._context_tokens = context_tokens
        self._gguf = gguf
        self._slots = slots
        self._threads = threads
        self._server: xllamacpp.Server | None = None

    def load(self) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(self._gguf)
        params.n_parallel = self._slots
        params.n_ctx = self._context_tokens * self._slots  # llama.cpp divides it among the slots
        params.n_batch = params.n_ubatch = max(BATCH_TOKENS, self._slots)
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._threads
        params.cache_ram_mib = 0  # a slot keeps its own conversation; no second cache grows beside it
        params.offline = True
        params.warmup = False  # the worker's own warm-up is a real request
        params.verbosity = ERRORS_ONLY
        # Its server insists on listening. On a Unix socket whose name is gone before anyone could know it, it may.
        with tempfile.TemporaryDirectory(prefix="callbox-llm-") as folder:
            params.hostnames = [str(Path(folder, "s.sock"))]
            try:
                self._server = xllamacpp.Server(params)
            except RuntimeError as error:
                raise ConfigurationError(f"llama.cpp cannot load {self._gguf}: {error}") from error

    def generate(self, slot: int, generation: Generation, emit: Emit) -> Generated:
        answer = _Answer(emit, silent=generation.max_tokens == 0)
        request: dict[str, Any] = {
            "messages": [{"role": message.role, "content": message.text} for message in generation.messages],
            "max_tokens": max(1, generation.max_tokens),  # it cannot make none
            "temperature": DEFAULT_TEMPERATURE if generation.temperature is None else generation.temperature,
            "top_p": 1.0 if generation.top_p is None else generation.top_p,
            "repeat_penalty": generation.repeat_penalty or DEFAULT_REPEAT_PENALTY,
            "presence_penalty": generation.presence_penalty,
            "frequency_penalty": generation.frequency_penalty,
            "stop": list(generation.stop),
            "id_slot": slot,
            "cache_prompt": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,  # a callback for each batch of the prompt: without it a prefill cannot be stopped
        }
        if generation.seed is not None:
            request["seed"] = generation.seed
        if self._server is None:
            raise Unavailable("llama.cpp is not loaded")
        try:
            self._server.handle_chat_completions(request, answer.take)
        except ValueError as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error
        return answer.ended()

    def close(self) -> None:
        """Ends llama.cpp's threads; no `generate` may be under way."""
        self._server = None


class _Answer:
    """Collects what llama.cpp calls back with: OpenAI chunks, or an error in one chunk."""

    def __init__(self, emit: Emit, *, silent: bool) -> None:
        self._emit = emit
        self._silent = silent
        self._stopped = False
        self._error: dict[str, Any] | None = None
        self._failure: Exception | None = None
        self._reason = ""
        self._usage: dict[str, Any] = {}

    def take(self, chunk: dict[str, Any]) -> bool:
        """True tells llama.cpp to stop. It swallows what a callback raises, so nothing may be raised here."""
        try:
            if "error" in chunk:
                self._error = chunk["error"]
                return True
            self._usage = chunk.get("usage", self._usage)
            text = ""
            for choice in chunk["choices"]:
                self._reason = choice["finish_reason"] or self._reason
                text += choice["delta"].get("content") or ""
            self._stopped = self._stopped or self._emit("" if self._silent else text)
        except Exception as failure:
            self._failure = failure
            return True
        return self._stopped

    def ended(self) -> Generated:
        if self._failure is not None:
            raise self._failure
        if self._error is not None:
            message = str(self._error.get("message", "llama.cpp gave no reason"))
            raise BadRequest(message) if self._error.get("code") == 400 else Unavailable(message)
        if not self._reason and not self._stopped:
            raise Unavailable("llama.cpp ended an answer without a reason")
        return Generated(
            reason="stop" if self._reason == "stop" else "length" if self._reason else "cancelled",
            prompt_tokens=int(self._usage.get("prompt_tokens", 0)),
            completion_tokens=0 if self._silent else int(self._usage.get("completion_tokens", 0)),
            cached_tokens=int(self._usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)),
        )
