"""PCM frames, framing, resampling and WAV files. Samples are mono int16 everywhere; floats live inside engines only."""

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soxr

from daemons.errors import BadRequest

Samples = npt.NDArray[np.int16]
FloatSamples = npt.NDArray[np.float32]

FRAME_MS = 20
STT_RATE_HZ = 16_000
TTS_RATE_HZ = 24_000
SILENCE_DBFS = -120.0


@dataclass(frozen=True, slots=True)
class Pcm:
    """Mono audio: `samples` int16 [n] at `rate_hz`."""

    samples: Samples
    rate_hz: int

    @property
    def duration_ms(self) -> float:
        return len(self.samples) * 1000 / self.rate_hz

    def resampled(self, rate_hz: int) -> "Pcm":
        if rate_hz == self.rate_hz:
            return self
        return Pcm(soxr.resample(self.samples, self.rate_hz, rate_hz), rate_hz)


class Resampler:
    """Streaming resampler of mono int16; the output lags by soxr's filter delay until `last`."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._stream = None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, 1, dtype="int16")

    def __call__(self, samples: Samples, *, last: bool = False) -> Samples:
        if self._stream is None:
            return samples
        resampled: Samples = self._stream.resample_chunk(samples, last=last)
        return resampled


class Framer:
    """Cuts a stream of sample arrays into arrays of exactly `size` samples."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rest: Samples = np.zeros(0, np.int16)

    def push(self, samples: Samples) -> Iterator[Samples]:
        joined = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        whole = len(joined) - len(joined) % self._size
        self._rest = joined[whole:]
        for at in range(0, whole, self._size):
            yield joined[at : at + self._size]

    def flush(self) -> Samples:
        """What is left, padded with silence to one frame; empty when nothing is left."""
        rest, self._rest = self._rest, np.zeros(0, np.int16)
        return np.pad(rest, (0, self._size - len(rest))) if len(rest) else rest


def to_float(samples: Samples) -> FloatSamples:
    return samples.astype(np.float32) / 32768.0


def to_int16(samples: FloatSamples) -> Samples:
    """Rounded, not truncated; what lies beyond full scale is clipped."""
    scaled: FloatSamples = np.rint(samples * 32768.0)
    return scaled.clip(-32768, 32767).astype(np.int16)


def level_dbfs(samples: Samples) -> float:
    """RMS level; a full-scale square wave is 0 dBFS."""
    if not len(samples):
        return SILENCE_DBFS
    mean_square = float(np.mean(np.square(samples.astype(np.float64) / 32768.0)))
    return max(SILENCE_DBFS, 10 * float(np.log10(mean_square))) if mean_square > 0 else SILENCE_DBFS


def read_wav(source: Path | bytes) -> Pcm:
    """Read 16-bit PCM WAV; several channels are averaged, a last sample that was cut off is dropped.

    Raises BadRequest when it is anything else.
    """
    opened: str | BinaryIO = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        with wave.open(opened, "rb") as wav:
            if wav.getsampwidth() != 2:
                raise BadRequest(f"WAV has {8 * wav.getsampwidth()} bits a sample; only 16-bit PCM is read")
            channels, rate_hz = wav.getnchannels(), wav.getframerate()
            pcm = wav.readframes(wav.getnframes())
    except (wave.Error, EOFError, RuntimeError) as error:  # RuntimeError: a chunk ends beyond the file's
        raise BadRequest(f"not a PCM WAV file: {str(error) or 'it ends too soon'}") from error
    if not rate_hz:
        raise BadRequest("not a PCM WAV file: its sample rate is 0 Hz")
    interleaved = np.frombuffer(pcm, np.int16, count=len(pcm) // (2 * channels) * channels)
    if channels == 1:
        return Pcm(interleaved, rate_hz)
    return Pcm(interleaved.reshape(-1, channels).mean(axis=1).round().astype(np.int16), rate_hz)


def wav_bytes(pcm: Pcm) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(pcm.rate_hz)
        wav.writeframes(pcm.samples.tobytes())
    return out.getvalue()
