"""Audio files of the kinds that clients send, decoded piece by piece and no further than a limit."""

import io
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from daemons.audio import STT_RATE_HZ, FloatSamples
from daemons.errors import BadRequest

LONGEST_FILE_S = 900
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 4_000, 384_000
MOST_CHANNELS = 8
MOST_VALUES = LONGEST_FILE_S * 96_000 * 2  # of all channels: some 5 s of decoding
UNTOLD_FRAMES = 2**63 - 1  # as libsndfile says it; it cannot read on there
BLOCK_VALUES = 2**18  # decoded at once, of all channels: some 10 ms of work
HEADER_BYTES = 1024
TAKEN = "WAV, FLAC, OGG and MP3"


def decoded(file: bytes) -> Iterator[FloatSamples]:
    """What the file holds, as blocks of float32 [n] within ±1 at 16 kHz; its channels are averaged.

    However small a file is, it makes no more than LONGEST_FILE_S. Raises BadRequest for what is no such file.
    """
    kind = kind_of(file)
    try:
        with soundfile.SoundFile(io.BytesIO(file)) as sound:
            _check(sound)
            if not sound.frames and len(file) > HEADER_BYTES:
                raise BadRequest(f"this {kind} file says that it holds no audio, and has {len(file)} bytes")
            yield from _resampled(_mono(sound), sound.samplerate)
    except soundfile.LibsndfileError as error:
        raise BadRequest(f"this {kind} file cannot be read: {error.error_string}") from error


def kind_of(file: bytes) -> str:
    """By its first bytes, so that only the decoders of these four ever see a stranger's bytes. Raises BadRequest."""
    if file[:4] in (b"RIFF", b"RIFX", b"RF64") and file[8:12] == b"WAVE":
        return "WAV"
    if file[:4] == b"fLaC":
        return "FLAC"
    if file[:4] == b"OggS":
        return "OGG"
    if file[:3] == b"ID3" or (len(file) > 1 and file[0] == 0xFF and file[1] & 0xE6 == 0xE2):  # layer III
        return "MP3"
    if not file:
        raise BadRequest("the file is empty")
    for name, at, magic in (("WebM", 0, b"\x1a\x45\xdf\xa3"), ("MP4", 4, b"ftyp"), ("AIFF", 0, b"FORM")):
        if file[at:].startswith(magic):
            raise BadRequest(f"this is {name}, which is not read here; {TAKEN} are")
    raise BadRequest(f"this is no audio file of a kind that is read here: {TAKEN}")


def _check(sound: soundfile.SoundFile) -> None:
    """What the file says of itself. Raises BadRequest when that is too much."""
    rate_hz, channels = sound.samplerate, sound.channels
    if not LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ:
        raise BadRequest(f"a sample rate of {rate_hz} Hz is not between {LOWEST_RATE_HZ} and {HIGHEST_RATE_HZ}")
    if channels > MOST_CHANNELS:
        raise BadRequest(f"the audio has {channels} channels; at most {MOST_CHANNELS} are read")
    if sound.frames == UNTOLD_FRAMES:
        raise BadRequest(f"this {sound.format} file was streamed and does not say how long it is; give it its length")
    if sound.frames > _most_frames(sound):
        raise _too_long(sound)


def _most_frames(sound: soundfile.SoundFile) -> int:
    return int(min(LONGEST_FILE_S * sound.samplerate, MOST_VALUES // sound.channels))


def _too_long(sound: soundfile.SoundFile) -> BadRequest:
    return BadRequest(f"the audio is longer than {_most_frames(sound) / sound.samplerate:.0f} s")


def _mono(sound: soundfile.SoundFile) -> Iterator[FloatSamples]:
    left = _most_frames(sound)
    while len(block := sound.read(BLOCK_VALUES // sound.channels, dtype="float32", always_2d=True)):
        left -= len(block)
        if left < 0:  # the file said less than it held, or nothing
            raise _too_long(sound)
        yield np.nan_to_num(block, copy=False, nan=0.0).clip(-1, 1).mean(axis=1)


def _resampled(blocks: Iterator[FloatSamples], rate_hz: int) -> Iterator[FloatSamples]:
    if rate_hz == STT_RATE_HZ:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate_hz, STT_RATE_HZ, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
