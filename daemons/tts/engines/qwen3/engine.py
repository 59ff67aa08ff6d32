"""Qwen3-TTS CustomVoice as an engine of the speech worker."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from daemons.errors import BadRequest, ConfigurationError, Unavailable
from daemons.tts.engines.qwen3.batch import Batch
from daemons.tts.engines.qwen3.codec import weights as codec_weights
from daemons.tts.engines.qwen3.codec.incremental import IncrementalDecoder
from daemons.tts.engines.qwen3.codec.precision import exact_float32
from daemons.tts.engines.qwen3.config import read_config
from daemons.tts.engines.qwen3.graphs import CudaDriver
from daemons.tts.engines.qwen3.prompt import AUTO, prompt
from daemons.tts.engines.qwen3.quantization import Quantization, check_quantization, quantize
from daemons.tts.engines.qwen3.sampling import CodeSampler, read_sampling
from daemons.tts.engines.qwen3.stream import Ending, Stream
from daemons.tts.engines.qwen3.text import TextFeed, read_tokenizer, role_ids
from daemons.tts.engines.qwen3.weights import load_talker

if TYPE_CHECKING:
    from daemons.audio import FloatSamples

log = logging.getLogger(__name__)

ROOM = 2048  # positions of a stream: 160 s
GRAPHED_ROOM = 768  # a minute: what is attended to costs time at every step, whether or not it is there
WARM_UP_TEXT = "Hello, this is a test."
WARM_UP_FRAMES = 32


class Qwen3:
    def __init__(
        self, place: Path, *, voice: str, device: str, quantization: Quantization, threads: int, slots: int
    ) -> None:
        """`place`: the folder of a published checkpoint. `slots`: how many texts are spoken at once; more wait.

        `threads` compute where `device` is `cpu`.
        """
        self.voice = voice
        self._place = place
        self._device = torch.device(device)
        self._quantization = quantization
        self._threads = threads
        self._slots = slots
        self._batch: Batch | None = None

    def load(self) -> None:
        """Raises ConfigurationError when the checkpoint is not what this engine speaks, or this machine cannot."""
        check_quantization(self._quantization, self._device)
        exact_float32()
        on_gpu = self._device.type == "cuda"
        if not on_gpu:
            torch.set_num_threads(self._threads)
        dtype = torch.bfloat16 if on_gpu else torch.float32
        config = read_config(self._place)
        self._ids = config.text_ids
        self._tokenizer = read_tokenizer(self._place)
        role = role_ids(self._tokenizer, config.text_ids)
        try:
            whole = prompt(config, role, config.text_ids.tts_pad, speaker=self.voice, language=AUTO)
        except BadRequest as error:
            raise ConfigurationError(f"{self._place}: {error}") from error
        talker = load_talker(self._place, config, dtype=dtype)
        quantize(talker, self._quantization)  # before a card has it: it never has to hold both
        talker.to(self._device)
        decoder = IncrementalDecoder(codec_weights.load(self._place / "speech_tokenizer").to(self._device))
        with torch.inference_mode():
            opening = whole.embedded(talker, self._device)[0, :-1].clone()
        batch = Batch(
            talker,
            decoder,
            CodeSampler(config, read_sampling(self._place), device=self._device),
            config,
            opening,
            rows=self._slots,
            room=ROOM,
            graphed_room=GRAPHED_ROOM,
            codegen=CudaDriver(self._device) if on_gpu else None,
            decoding=CudaDriver(self._device) if on_gpu else None,
        )
        batch.capture()
        self._batch = batch
        self._warm_up()

    def open(self, *, seed: int, on_audio: "Callable[[FloatSamples], None]", on_end: Callable[[str], None]) -> Stream:
        def hand_on(audio: Tensor) -> None:
            on_audio(audio.numpy().copy())

        def end(ending: Ending) -> None:
            on_end(ending.value)

        return self._loaded.open(TextFeed(self._tokenizer, self._ids), seed=seed, on_audio=hand_on, on_end=end)

    def step(self) -> bool:
        has_worked: bool = self._loaded.step()
        return has_worked

    def close(self) -> None:
        for graphed in () if self._batch is None else self._batch.graphed:
            if graphed.misses:
                misses = ", ".join(f"{count} for {miss}" for miss, count in graphed.misses.items())
                log.info("%s: %d steps by graphs, without one %s", graphed.name, graphed.replays, misses)

    def _warm_up(self) -> None:
        stream = self.open(seed=0, on_audio=lambda _: None, on_end=lambda _: None)
        stream.write(WARM_UP_TEXT)
        stream.end()
        while len(stream.codes) < WARM_UP_FRAMES and self.step():
            pass
        stream.close()
        while self.step():
            pass

    @property
    def _loaded(self) -> Batch:
        if self._batch is None:
            raise Unavailable("the engine is not loaded")
        return self._batch
