"""Hibari: a small English voice, about a hundred times faster than speech on one core."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hibari
import hibari.dsp
import hibari.voices
import numpy as np
import numpy.typing as npt
import onnxruntime

from daemons.audio import TTS_RATE_HZ, FloatSamples
from daemons.errors import ConfigurationError
from daemons.tts.engine import Phrase

# Inside the model: how long each phoneme lasts. It is not among the model's outputs, so it is made one.
DURATIONS = "/Cast_32_output_0"
OVERLAP_MS = 20
# A sentence that goes on must be heard to go on, though nobody knows how: this is said after it, and cut off.
GOES_ON = "and it goes on from there."


class Hibari:
    def __init__(self, voice: str, threads: int) -> None:
        self.voice = voice
        self.overlap = 0
        self._threads = threads

    def load(self) -> None:
        onnxruntime.disable_telemetry_events()
        try:
            path = hibari.voices.voice_path(self.voice, download_missing=False)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        except FileNotFoundError as error:
            raise ConfigurationError(f"the voice {self.voice!r} is not on this machine: {error} is missing") from error
        model = with_output(Path(path).read_bytes(), DURATIONS)
        self._model = hibari.Hibari(self.voice, model=model, threads=self._threads)
        self.overlap = OVERLAP_MS * TTS_RATE_HZ // 1000

    def synthesize(self, phrase: Phrase, *, seed: int, speed: float) -> Iterator[FloatSamples]:
        noise = np.random.default_rng(seed)
        if phrase.before or phrase.is_open:
            yield from self._part(phrase, speed, noise)
            return
        for phonemes in self._model.phonemize(phrase.text):
            yield self._say(self._model.ids(phonemes), speed, noise)[0]

    def close(self) -> None:
        pass  # it lives in this process, and ends with it

    def _part(self, phrase: Phrase, speed: float, noise: np.random.Generator) -> Iterator[FloatSamples]:
        """Of a sentence that is said as a whole, as far as it is known, what belongs to this phrase."""
        before, text = self._phonemes(phrase.before), self._phonemes(phrase.text)
        if not text:
            return
        space = self._model.ids(" ")[1:-1]
        begins = 1 + len(before)  # the sentence has a pad in front; a border lies in the space between two parts
        ids = [*self._model.ids("")[:1], *before, *(space if before else []), *text]
        ends = len(ids)
        if phrase.after is not None:
            ids += [*space, *self._phonemes(f"{phrase.after} {GOES_ON}")]
        samples, durations = self._say([*ids, *self._model.ids("")[-1:]], speed, noise)
        half = self.overlap // 2
        start = _middle(samples, durations, begins) - half if before else 0
        end = _middle(samples, durations, ends) + half if phrase.is_open else len(samples)
        yield samples[max(0, start) : end]

    def _phonemes(self, text: str) -> list[int]:
        ids: list[int] = self._model.ids(self._model.g2p(text) if text else "")[1:-1]
        return ids

    def _say(
        self, ids: list[int], speed: float, noise: np.random.Generator
    ) -> tuple[FloatSamples, npt.NDArray[np.int64]]:
        """(float32 [n] at 24 kHz, how long each of `ids` lasts in frames of equal length)."""
        if len(ids) < 3:
            return np.zeros(0, np.float32), np.zeros(len(ids), np.int64)
        given: dict[str, Any] = {"ids": np.array([ids], np.int64), "speed": np.array([speed], np.float32)}
        *spectrum, durations = self._model.sess.run(None, given)
        samples: FloatSamples = hibari.dsp.synth(*(part[0] for part in spectrum), noise)
        return samples, durations


def _middle(samples: FloatSamples, durations: npt.NDArray[np.int64], index: int) -> int:
    """The sample in the middle of the phoneme at `index`."""
    before, whole = int(durations[:index].sum()), int(durations.sum())
    return round((before + int(durations[index]) / 2) * len(samples) / whole)


def with_output(model: bytes, name: str) -> bytes:
    """An ONNX model that gives its inner tensor `name` as its last output.

    Parts of one protobuf message that are set end to end merge, and repeated fields grow: onnx.proto has
    ModelProto.graph = 7, GraphProto.output = 12, ValueInfoProto.name = 1.
    """
    return model + _field(7, _field(12, _field(1, name.encode())))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of protobuf."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
