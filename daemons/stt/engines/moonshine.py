"""Moonshine (encoder and merged decoder as ONNX files) with greedy decoding."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from daemons.audio import STT_RATE_HZ, FloatSamples
from daemons.onnx import session
from daemons.stt.repeats import looping_tail
from daemons.stt.stop import Stop

BOS, EOS = 1, 2
TOKENS_PER_S = 6.5
TOKENS_AT_LEAST = 8
SHORTEST_SAMPLES = STT_RATE_HZ // 5  # below about 0.1 s the encoder's convolutions have nothing left to see
WORD_START = "▁".encode()


class Moonshine:
    languages: tuple[str, ...] = ("en",)
    longest_s = 15.0

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self._threads = threads

    def load(self) -> None:
        self._encoder = session(self._folder / "encoder_model.ort", self._threads)
        self._decoder = session(self._folder / "decoder_model_merged.ort", self._threads)
        self._output_names = [output.name for output in self._decoder.get_outputs()]
        self._empty_cache = {
            given.name: np.zeros((1, given.shape[1], 0, given.shape[3]), np.float32)
            for given in self._decoder.get_inputs()
            if given.name.startswith("past_key_values.")
        }
        self._pieces = read_pieces((self._folder / "tokenizer.bin").read_bytes())

    def transcribe(self, samples: FloatSamples, stop: Stop) -> str:
        padded = np.pad(samples, (0, max(0, SHORTEST_SAMPLES - len(samples))))
        try:
            return self._text(self._tokens(padded, stop))
        except Fail:
            if stop.is_set():
                return ""
            raise

    def _tokens(self, samples: FloatSamples, stop: Stop) -> list[int]:
        mask = np.ones((1, len(samples)), np.int64)
        given = {"input_values": samples[np.newaxis], "attention_mask": mask}
        [hidden] = self._encoder.run(None, given, stop.options)
        cache: dict[str, npt.NDArray[np.float32]] = dict(self._empty_cache)
        tokens = [BOS]
        for step in range(TOKENS_AT_LEAST + int(len(samples) / STT_RATE_HZ * TOKENS_PER_S)):
            given = {
                "input_ids": np.array([tokens[-1:]], np.int64),
                "encoder_hidden_states": hidden,
                "encoder_attention_mask": mask,  # of the raw samples: the decoder scales it down itself
                "use_cache_branch": np.array([step > 0]),
                **cache,
            }
            outputs = dict(zip(self._output_names, self._decoder.run(None, given, stop.options), strict=True))
            token = int(outputs["logits"][0, -1].argmax())
            if token == EOS:
                break
            tokens.append(token)
            if looped := looping_tail(tokens):
                del tokens[-looped:]
                break
            for name in cache:
                if step == 0 or ".decoder." in name:  # the encoder's keys and values are made once, at the first step
                    cache[name] = outputs[name.replace("past_key_values", "present", 1)]
        return tokens[1:]

    def _text(self, tokens: list[int]) -> str:
        joined = b"".join(self._pieces[token] for token in tokens)
        return joined.replace(WORD_START, b" ").decode("utf-8", "replace").strip()


def read_pieces(packed: bytes) -> list[bytes]:
    """The vocabulary of tokenizer.bin: byte strings, each after its length; a length from 128 on takes two bytes."""
    pieces, at = [], 0
    while at < len(packed):
        size, at = packed[at], at + 1
        if size >= 128:
            size, at = packed[at] * 128 + size - 128, at + 1
        pieces.append(packed[at : at + size])
        at += size
    return pieces
