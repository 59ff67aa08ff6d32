import contextlib
import io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemons.audio import STT_RATE_HZ, FloatSamples
from daemons.errors import BadRequest
from daemons.stt.files import LONGEST_FILE_S, MOST_VALUES, decoded

TONE_HZ = 440


def tone(rate_hz: int = STT_RATE_HZ, seconds: float = 1.0) -> FloatSamples:
    return (0.5 * np.sin(np.arange(int(rate_hz * seconds)) * 2 * np.pi * TONE_HZ / rate_hz)).astype(np.float32)


def encoded(samples: FloatSamples, rate_hz: int, kind: str, subtype: str | None = None) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate_hz, format=kind, subtype=subtype)
    return out.getvalue()


def heard(file: bytes) -> FloatSamples:
    return np.concatenate([np.zeros(0, np.float32), *decoded(file)])


def is_the_tone(samples: FloatSamples) -> bool:
    """Of the right pitch, its level within 1 dB, over nine tenths of its length."""
    spectrum = np.abs(np.fft.rfft(samples))
    pitch_hz = float(spectrum.argmax()) * STT_RATE_HZ / len(samples)
    inner = samples[len(samples) // 20 : -len(samples) // 20]
    level = float(np.sqrt(2 * np.mean(np.square(inner, dtype=np.float64))))
    return abs(pitch_hz - TONE_HZ) < 2 and 0.445 < level < 0.562


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_U8"),
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "PCM_32"),
        ("WAV", "FLOAT"),
        ("WAV", "DOUBLE"),
        ("WAV", "ULAW"),
        ("WAV", "ALAW"),
        ("WAVEX", "PCM_24"),
        ("RF64", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_each_kind_is_heard_as_it_was(kind: str, subtype: str) -> None:
    assert is_the_tone(heard(encoded(tone(), STT_RATE_HZ, kind, subtype)))


@pytest.mark.parametrize("rate_hz", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 384_000])
def test_each_rate_becomes_16_khz(rate_hz: int) -> None:
    samples = heard(encoded(tone(rate_hz), rate_hz, "WAV"))
    assert is_the_tone(samples)
    assert abs(len(samples) - STT_RATE_HZ) <= 1


def test_channels_are_averaged() -> None:
    stereo = np.stack([tone(), np.zeros_like(tone())], axis=1)
    assert np.abs(heard(encoded(stereo, STT_RATE_HZ, "WAV", "FLOAT"))).max() == pytest.approx(0.25, abs=0.01)


def test_what_is_no_number_is_silence_and_what_is_too_loud_is_clipped() -> None:
    samples = np.array([np.nan, np.inf, -np.inf, 1e38, 0.5], np.float32)
    assert heard(encoded(samples, STT_RATE_HZ, "WAV", "FLOAT")).tolist() == [0, 1, -1, 1, 0.5]


@pytest.mark.parametrize("told", [0xFFFFFFFF, 10**6])
def test_a_wav_that_was_streamed_may_say_a_wrong_length(told: int) -> None:
    wav = bytearray(encoded(tone(), STT_RATE_HZ, "WAV"))
    at = wav.index(b"data") + 4
    wav[at : at + 4] = struct.pack("<I", told)
    assert is_the_tone(heard(bytes(wav)))


def test_a_wav_that_says_it_is_empty_and_is_not_is_refused() -> None:
    wav = bytearray(encoded(tone(), STT_RATE_HZ, "WAV"))
    at = wav.index(b"data") + 4
    wav[at : at + 4] = bytes(4)
    with pytest.raises(BadRequest, match="no audio"):
        heard(bytes(wav))


def without_its_length(flac: bytes) -> bytes:
    told = bytearray(flac)
    told[21] &= 0xF0
    told[22:26] = bytes(4)
    return bytes(told)


def test_a_flac_that_was_streamed_says_no_length_and_is_refused_in_words() -> None:
    with pytest.raises(BadRequest, match="how long"):
        heard(without_its_length(encoded(tone(), STT_RATE_HZ, "FLAC")))


@pytest.mark.parametrize(
    ("rate_hz", "channels", "seconds"), [(STT_RATE_HZ, 1, LONGEST_FILE_S + 60), (96_000, 4, LONGEST_FILE_S // 2 + 30)]
)
def test_a_decompression_bomb_is_refused_in_little_memory(rate_hz: int, channels: int, seconds: int) -> None:
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate_hz, channels, "PCM_16", format="FLAC") as sound:
        for _ in range(seconds):
            sound.write(np.zeros((rate_hz, channels), np.int16))
    bomb = out.getvalue()
    assert seconds * rate_hz > LONGEST_FILE_S * rate_hz or seconds * rate_hz * channels > MOST_VALUES
    assert len(bomb) < 2 * 2**20
    tracemalloc.start()
    with pytest.raises(BadRequest, match="longer than"):
        heard(bomb)
    assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    tracemalloc.stop()


SOUND = {kind: encoded(tone(), STT_RATE_HZ, kind) for kind in ("WAV", "FLAC", "OGG", "MP3")}


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(sorted(SOUND)),
    cut=st.floats(0, 1),
    strokes=st.lists(
        st.tuples(st.integers(0, 200) | st.integers(0, 30_000), st.binary(min_size=1, max_size=8)), max_size=6
    ),
)
def test_a_damaged_file_is_heard_or_refused_and_nothing_else(
    kind: str, cut: float, strokes: list[tuple[int, bytes]]
) -> None:
    file = bytearray(SOUND[kind])
    for at, stroke in strokes:
        file[at : at + len(stroke)] = stroke
    with contextlib.suppress(BadRequest):
        samples = heard(bytes(file[: int(len(file) * cut)]))
        assert np.isfinite(samples).all()
        assert np.abs(samples).max(initial=0.0) < 1.5
        assert len(samples) <= LONGEST_FILE_S * STT_RATE_HZ


@settings(max_examples=100)
@given(
    start=st.sampled_from(
        [b"", b"RIFF\x10\0\0\0WAVE", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"fLaC", b"OggS\0", b"ID3", b"\xff\xfb"]
    ),
    rest=st.binary(max_size=400),
)
def test_strange_bytes_are_refused_or_silence(start: bytes, rest: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert np.abs(heard(start + rest)).max(initial=0.0) < 1.5
