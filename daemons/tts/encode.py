"""Audio files as they are made: WAV and raw PCM by hand, MP3, Ogg Opus and FLAC by libsndfile."""

import asyncio
import io
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np
import soundfile

from daemons.audio import TTS_RATE_HZ, Pcm, Samples, wav_bytes

AudioFormat = Literal["mp3", "opus", "flac", "wav", "pcm"]
FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)
CONTENT_TYPES: dict[AudioFormat, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
# These say at their head how long they are, so they are streamed only to who asks for that.
LENGTH_AHEAD: frozenset[AudioFormat] = frozenset(["wav", "flac"])
UNKNOWN_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Codec:
    container: str
    subtype: str
    bitrate_mode: str | None = None
    compression_level: float | None = None


_CODECS: dict[AudioFormat, _Codec] = {
    # 64 kbit/s, constant: of a stream without a length players know no better than to trust the bit rate
    "mp3": _Codec("MP3", "MPEG_LAYER_III", "CONSTANT", 0.6),
    "opus": _Codec("OGG", "OPUS"),
    "flac": _Codec("FLAC", "PCM_16"),
}


class Encoder(Protocol):
    """The bytes of one file, handed out as they are made."""

    async def write(self, samples: Samples) -> bytes:
        """int16 [n] at 24 kHz, a second or so at most; what comes may be empty, and more than this input."""

    async def end(self) -> bytes: ...


def stream_encoder(name: AudioFormat) -> Encoder:
    if name == "pcm":
        return _Plain(b"")
    if name == "wav":
        return _Plain(endless_wav_header())
    return _Compressed(_CODECS[name])


async def encoded(name: AudioFormat, samples: Samples) -> bytes:
    """A whole file, with its length where its format has a place for it."""
    if name == "pcm":
        return samples.tobytes()
    if name == "wav":
        return wav_bytes(Pcm(samples, TTS_RATE_HZ))
    file = io.BytesIO()

    def write() -> None:
        with _open(_CODECS[name], file) as sound:
            sound.write(samples)

    await asyncio.to_thread(write)
    return file.getvalue()


def endless_wav_header() -> bytes:
    """Of a WAV whose length is not known yet; players then read to the end of the stream."""
    header = bytearray(wav_bytes(Pcm(np.zeros(0, np.int16), TTS_RATE_HZ)))
    header[4:8] = header[40:44] = UNKNOWN_LENGTH.to_bytes(4, "little")
    return bytes(header)


class _Plain:
    def __init__(self, header: bytes) -> None:
        self._header = header

    async def write(self, samples: Samples) -> bytes:
        header, self._header = self._header, b""
        return header + samples.tobytes()

    async def end(self) -> bytes:
        return b""


class _Compressed:
    """In a thread: a second of Opus costs a tenth of a second."""

    def __init__(self, codec: _Codec) -> None:
        self._outgoing = _Outgoing()
        self._sound = _open(codec, self._outgoing)

    async def write(self, samples: Samples) -> bytes:
        await asyncio.to_thread(self._sound.write, samples)
        return self._outgoing.take()

    async def end(self) -> bytes:
        await asyncio.to_thread(self._sound.close)
        return self._outgoing.take()


class _Outgoing:
    """A file that is sent as it grows: what libsndfile goes back to rewrite at the end, a length, is out already."""

    def __init__(self) -> None:
        self._new = bytearray()
        self._sent_bytes = 0
        self._at = 0

    def take(self) -> bytes:
        new, self._new = bytes(self._new), bytearray()
        self._sent_bytes += len(new)
        return new

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._sent_bytes + len(self._new)}[whence]
        self._at = start + offset
        return self._at

    def write(self, data: bytes) -> int:
        piece = bytes(data)
        if self._at == self._sent_bytes + len(self._new):
            self._new += piece
        self._at += len(piece)
        return len(piece)


def _open(codec: _Codec, file: "_Outgoing | io.BytesIO") -> soundfile.SoundFile:
    return soundfile.SoundFile(
        file,
        "w",
        samplerate=TTS_RATE_HZ,
        channels=1,
        format=codec.container,
        subtype=codec.subtype,
        bitrate_mode=codec.bitrate_mode,
        compression_level=codec.compression_level,
    )
