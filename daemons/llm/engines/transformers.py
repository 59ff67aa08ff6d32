"""Any model in a local folder of Hugging Face's kind, or a GGUF file, on torch: its own `generate`, streamed."""

import base64
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import torch
from tokenizers.decoders import DecodeStream
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)
from transformers.generation.streamers import BaseStreamer

from daemons.audio import FloatSamples, read_wav, to_float
from daemons.errors import BadRequest, ConfigurationError
from daemons.llm.generation import (
    DEFAULT_REPEAT_PENALTY,
    DEFAULT_TEMPERATURE,
    TEXT_ONLY,
    Audio,
    ChatMessage,
    Generated,
    Generation,
    Modality,
    Reason,
)
from daemons.llm.stops import StopText
from daemons.llm.threaded import Emit

LONGEST_SOUND_S = 30  # as far as the ears of Whisper's kind reach
BATCH_TOKENS = 64  # of a prompt are read at once: so long a cancel waits


class Transformers:
    """On the GPU where torch sees one. Several threads may generate at once, each in its slot.

    `omni`: the model hears, by the processor that lies beside it.
    """

    def __init__(self, place: Path, *, slots: int, context_tokens: int, threads: int, omni: bool = False) -> None:
        self.takes: frozenset[Modality] = frozenset({"text", "audio"}) if omni else TEXT_ONLY
        self._place = place
        self._context_tokens = context_tokens
        self._threads = threads
        self._slots = slots
        self._tokenizing = threading.Lock()  # a tokenizer that is being set up is lent to nobody else

    def load(self) -> None:
        folder, more = location(self._place)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu":
            torch.set_num_threads(self._threads)
        kind = AutoModelForCausalLM
        try:
            if "audio" in self.takes:
                from transformers import AutoModelForMultimodalLM  # noqa: PLC0415 - since transformers 5

                kind = AutoModelForMultimodalLM
                self._processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **more)
            model = kind.from_pretrained(folder, local_files_only=True, dtype="auto", **more)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ConfigurationError(f"transformers cannot load {self._place}: {error}") from error
        if self._speaker.chat_template is None:
            raise ConfigurationError(f"{self._place} has no chat template: it was not made for conversations")
        self._model = model.to(device).eval()
        self._memories = [_Memory(model.config) for _ in range(self._slots)]
        self._context_tokens = min(
            self._context_tokens,
            getattr(model.config.get_text_config(), "max_position_embeddings", self._context_tokens),
        )
        # The model's own wishes for sampling would mix with the request's; only where it ends is its affair.
        ends = model.generation_config.eos_token_id
        self._ends = _numbers(self._tokenizer.eos_token_id if ends is None else ends)
        self._model.generation_config = GenerationConfig(eos_token_id=self._ends, pad_token_id=self._ends[0])

    def generate(self, slot: int, generation: Generation, emit: Emit) -> Generated:
        prompt, sounds = self._prompt(generation)
        room = self._context_tokens - len(prompt)
        if room < 1:
            raise BadRequest(f"the prompt has {len(prompt)} tokens; the context holds {self._context_tokens}")
        # Sound stands in the prompt as one token again and again, whatever is heard: it is never taken from a cache.
        memory = _Memory(self._model.config) if sounds else self._memories[slot]
        cached = memory.recall(prompt)
        with torch.inference_mode():
            if not sounds and not self._read(prompt, memory, emit):
                return Generated("cancelled", len(prompt), 0, cached)
            if generation.max_tokens == 0:
                return Generated("length", len(prompt), 0, cached)
            words = _Words(self._tokenizer, generation.stop, emit)
            tokens = self._model.generate(
                torch.tensor([prompt], device=self._model.device),
                past_key_values=memory.cache,
                max_new_tokens=min(generation.max_tokens, room),
                do_sample=False,  # the last of the processors draws: see there
                logits_processor=processors(generation, self._model.device),
                stopping_criteria=StoppingCriteriaList([_Stopped(words)]),
                streamer=words,
                **sounds,
            )
        memory.holds(tokens[0].tolist())
        has_ended = words.has_hit_stop or tokens[0, -1].item() in self._ends
        reason: Reason = "cancelled" if words.is_cancelled else "stop" if has_ended else "length"
        return Generated(reason, len(prompt), words.tokens, cached)

    def close(self) -> None:
        self._memories.clear()

    @property
    def _speaker(self) -> Any:
        """Who knows the chat template."""
        return self._processor if "audio" in self.takes else self._tokenizer

    def _prompt(self, generation: Generation) -> tuple[list[int], dict[str, torch.Tensor]]:
        """Its tokens, and what the model hears. Raises BadRequest when that is no sound, or the template refuses it."""
        conversation = [{"role": message.role, "content": self._content(message)} for message in generation.messages]
        sounds = [part for message in generation.messages for part in message.parts if isinstance(part, Audio)]
        try:
            with self._tokenizing:
                text = self._speaker.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
                if not sounds:
                    return _numbers(self._tokenizer(text, add_special_tokens=False)["input_ids"]), {}
                rate_hz = self._processor.feature_extractor.sampling_rate
                heard = [samples_of(sound, rate_hz) for sound in sounds]
                seen = self._processor(text=text, audio=heard, sampling_rate=rate_hz, return_tensors="pt")
        except jinja2.TemplateError as error:
            raise BadRequest(f"the model's chat template refuses this: {error}") from error
        prompt = _numbers(seen.pop("input_ids")[0].tolist())
        seen.pop("attention_mask", None)
        precision = self._model.dtype
        return prompt, {
            name: value.to(self._model.device, precision if value.is_floating_point() else None)
            for name, value in seen.items()
        }

    def _content(self, message: ChatMessage) -> str | list[dict[str, str]]:
        if "audio" not in self.takes:
            return message.text
        return [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": "audio"} for part in message.parts
        ]

    def _read(self, prompt: list[int], memory: "_Memory", emit: Emit) -> bool:
        """Read all but the prompt's last token, batch by batch; False when `emit` says that nobody waits."""
        for start in range(memory.length, len(prompt) - 1, BATCH_TOKENS):
            batch = prompt[start : min(start + BATCH_TOKENS, len(prompt) - 1)]
            self._model(
                input_ids=torch.tensor([batch], device=self._model.device),
                past_key_values=memory.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            memory.holds(prompt)
            if emit(""):
                return False
        return True


class _Memory:
    """What a slot's model has read: its keys and values, and of which tokens they are."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self.cache = DynamicCache(config=config)
        self._tokens: list[int] = []

    @property
    def length(self) -> int:
        return int(self.cache.get_seq_length())

    def recall(self, prompt: list[int]) -> int:
        """Forget what is not the beginning of `prompt`, or is its last token, which must be read for its successor.

        How many tokens are left.
        """
        same = 0
        for known, wanted in zip(self._tokens, prompt[:-1], strict=False):
            if known != wanted:
                break
            same += 1
        surplus = self.length - same
        if surplus > 0:
            if same and getattr(self.cache, "is_croppable", False):
                self.cache.crop(-surplus)
            else:
                self.cache, same = DynamicCache(config=self._config), 0
        self._tokens = prompt[:same]
        return same

    def holds(self, tokens: list[int]) -> None:
        """The tokens of this conversation, of which the model has read as many as the cache is long."""
        self._tokens = tokens[: self.length]


class _Words(BaseStreamer):  # type: ignore[misc]
    """Takes tokens as they are made, and passes their text on."""

    def __init__(self, tokenizer: Any, stops: Sequence[str], emit: Emit) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stops = StopText(stops)
        self._emit = emit
        self._prompt_is_past = False
        self.tokens = 0
        self.is_cancelled = False

    @property
    def has_hit_stop(self) -> bool:
        return self._stops.hit

    def put(self, value: torch.Tensor) -> None:
        """Whatever `generate` puts: first the prompt, then each token, int64 [1]."""
        if not self._prompt_is_past:
            self._prompt_is_past = True
            return
        if self.has_hit_stop:  # `generate` looks at the criteria before it streams, so one token too many comes
            return
        self.tokens += 1
        text = self._decoder.step(self._backend, int(value.item()))
        self.is_cancelled |= self._emit(self._stops.feed(text or ""))

    def end(self) -> None:
        if not self.is_cancelled and not self.has_hit_stop and (rest := self._stops.rest()):
            self._emit(rest)


class _Stopped(StoppingCriteria):  # type: ignore[misc]
    def __init__(self, words: _Words) -> None:
        self._words = words

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        is_over = self._words.is_cancelled or self._words.has_hit_stop
        return torch.full((input_ids.shape[0],), is_over, dtype=torch.bool, device=input_ids.device)


class _Penalties(LogitsProcessor):  # type: ignore[misc]
    """OpenAI's, on the tokens of the answer."""

    def __init__(self, presence: float, frequency: float) -> None:
        self._presence = presence
        self._frequency = frequency
        self._prompt_tokens: int | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._prompt_tokens is None:
            self._prompt_tokens = input_ids.shape[1]
        counts = torch.bincount(input_ids[0, self._prompt_tokens :], minlength=scores.shape[1])[: scores.shape[1]]
        return scores - self._frequency * counts - self._presence * (counts > 0)


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Adds Gumbel noise, so that the highest score is a draw from the distribution.

    `generate` draws from torch's one generator, which every slot shares; here each answer has a seed of its own.
    """

    def __init__(self, seed: int | None, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        noise = torch.empty_like(scores).exponential_(generator=self._generator)
        return scores - noise.log()


def processors(generation: Generation, device: torch.device) -> LogitsProcessorList:
    """What turns the model's scores into those whose highest is the next token."""
    temperature = DEFAULT_TEMPERATURE if generation.temperature is None else generation.temperature
    chain = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(generation.repeat_penalty or DEFAULT_REPEAT_PENALTY)])
    if generation.presence_penalty or generation.frequency_penalty:
        chain.append(_Penalties(generation.presence_penalty, generation.frequency_penalty))
    if temperature > 0:
        chain.append(TemperatureLogitsWarper(temperature))
        if generation.top_p is not None and generation.top_p < 1:
            chain.append(TopPLogitsWarper(generation.top_p))
        chain.append(_Draw(generation.seed, device))
    return chain


def samples_of(sound: Audio, rate_hz: int) -> FloatSamples:
    """float32 [n] at `rate_hz`. Raises BadRequest for what is no 16-bit WAV file of a bearable length."""
    if sound.format != "wav":
        raise BadRequest(f"this engine hears wav files, not {sound.format}")
    pcm = read_wav(base64.b64decode(sound.base64))
    if pcm.duration_ms > LONGEST_SOUND_S * 1000:
        raise BadRequest(f"a sound of more than {LONGEST_SOUND_S} s is too long for this engine")
    return to_float(pcm.resampled(rate_hz).samples)


def location(place: Path) -> tuple[Path, dict[str, str]]:
    """(folder, what else `from_pretrained` must know). Raises ConfigurationError when there is no model, or several."""
    if place.is_file():
        return place.parent, {"gguf_file": place.name}
    if (place / "config.json").exists():
        return place, {}
    found = sorted(place.glob("*.gguf"))
    if len(found) != 1:
        raise ConfigurationError(f"{place} holds no config.json and {len(found)} .gguf files; one of them is wanted")
    return place, {"gguf_file": found[0].name}


def _numbers(ids: int | list[int]) -> list[int]:
    return [ids] if isinstance(ids, int) else list(ids)
