import contextlib
import io
import struct
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.audio import (
    SILENCE_DBFS,
    FloatSamples,
    Framer,
    Pcm,
    Resampler,
    Samples,
    level_dbfs,
    read_wav,
    to_float,
    to_int16,
    wav_bytes,
)
from daemons.errors import BadRequest

RAMP = np.arange(1000, dtype=np.int16)


def tone(rate_hz: int, seconds: float = 1.0, hz: float = 440.0, peak: float = 0.5) -> Samples:
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    return to_int16((peak * np.sin(2 * np.pi * hz * times)).astype(np.float32))


def wav(samples: Samples, *, rate_hz: int = 16_000, channels: int = 1, sample_bytes: int = 2) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as opened:
        opened.setnchannels(channels)
        opened.setsampwidth(sample_bytes)
        opened.setframerate(rate_hz)
        opened.writeframes(samples.tobytes())
    return out.getvalue()


# Framing


@given(st.integers(1, 50), st.lists(st.integers(0, 120), max_size=20))
def test_frames_are_exact_and_lose_nothing(size: int, chunks: list[int]) -> None:
    source = np.arange(sum(chunks), dtype=np.int16)
    framer, frames = Framer(size), list[Samples]()
    for chunk in np.split(source, np.cumsum(chunks)):
        frames += framer.push(chunk)
    assert all(len(frame) == size for frame in frames)
    rest = framer.flush()
    assert len(rest) in (0, size)
    joined = np.concatenate([*frames, rest]) if frames or len(rest) else source
    assert np.array_equal(joined[: len(source)], source)
    assert not joined[len(source) :].any(), "the last frame is padded with silence"
    assert not len(framer.flush()), "nothing is given twice"


# Numbers


def test_int16_survives_the_way_to_float_and_back() -> None:
    every = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)
    assert np.array_equal(to_int16(to_float(every)), every)


def test_floats_are_rounded_and_clipped_at_full_scale() -> None:
    floats: FloatSamples = np.array([0.6 / 32768, -0.6 / 32768, 1.5, -1.5], np.float32)
    assert to_int16(floats).tolist() == [1, -1, 32767, -32768]


@pytest.mark.parametrize(
    ("samples", "dbfs"),
    [
        (np.full(100, -32768, np.int16), 0.0),
        (np.full(100, 16384, np.int16), -6.02),
        (tone(16_000, peak=1.0), -3.01),
        (np.zeros(100, np.int16), SILENCE_DBFS),
        (np.zeros(0, np.int16), SILENCE_DBFS),
    ],
)
def test_level(samples: Samples, dbfs: float) -> None:
    assert level_dbfs(samples) == pytest.approx(dbfs, abs=0.01)


# Resampling


def strongest_hz(samples: Samples, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate_hz / len(samples))


@pytest.mark.parametrize(("from_hz", "to_hz"), [(24_000, 48_000), (48_000, 16_000), (44_100, 16_000), (8_000, 24_000)])
def test_resampling_keeps_pitch_level_and_length(from_hz: int, to_hz: int) -> None:
    before = Pcm(tone(from_hz), from_hz)
    after = before.resampled(to_hz)
    assert after.rate_hz == to_hz
    assert after.duration_ms == pytest.approx(before.duration_ms, abs=1)
    assert strongest_hz(after.samples, to_hz) == pytest.approx(440, abs=2)
    assert level_dbfs(after.samples) == pytest.approx(level_dbfs(before.samples), abs=0.1)


def test_a_stream_of_chunks_resamples_as_the_whole_does() -> None:
    source = tone(24_000)
    stream = Resampler(24_000, 48_000)
    cuts = [0, 1, 480, 481, 10_000, len(source)]
    chunks = [stream(source[begin:end]) for begin, end in pairwise(cuts)]
    chunks.append(stream(np.zeros(0, np.int16), last=True))
    joined = np.concatenate(chunks)
    whole = Pcm(source, 24_000).resampled(48_000).samples
    assert abs(len(joined) - len(whole)) <= 1
    difference = joined[: len(whole)].astype(int) - whole[: len(joined)]
    assert np.abs(difference).max() <= 2, "a seam would be heard as a click"


def test_the_same_rate_costs_nothing() -> None:
    samples = tone(16_000)
    assert Pcm(samples, 16_000).resampled(16_000).samples is samples
    assert Resampler(16_000, 16_000)(samples) is samples


# WAV


def test_a_wav_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ramp.wav"
    path.write_bytes(wav_bytes(Pcm(RAMP, 24_000)))
    for source in (path, path.read_bytes()):
        read = read_wav(source)
        assert read.rate_hz == 24_000
        assert read.duration_ms == pytest.approx(1000 / 24)
        assert np.array_equal(read.samples, RAMP)


def test_channels_are_averaged() -> None:
    left, right = np.array([100, -100, 32767], np.int16), np.array([300, -101, 32767], np.int16)
    stereo = wav(np.stack([left, right], axis=1).ravel(), channels=2)
    assert read_wav(stereo).samples.tolist() == [200, -100, 32767]


@pytest.mark.parametrize(("channels", "missing_bytes", "left"), [(1, 1, 999), (1, 2, 999), (2, 1, 499), (2, 3, 499)])
def test_a_sample_that_was_cut_off_is_dropped(channels: int, missing_bytes: int, left: int) -> None:
    assert len(read_wav(wav(RAMP, channels=channels)[:-missing_bytes]).samples) == left


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"", "too soon"),
        (b"ID3 this is an MP3", "RIFF"),
        (wav(RAMP)[:20], "too soon"),
        (wav(RAMP, sample_bytes=1), "8 bits"),
        (wav(np.zeros(999, np.int16), sample_bytes=3), "24 bits"),
        (wav(RAMP)[:24] + struct.pack("<I", 0) + wav(RAMP)[28:], "0 Hz"),
    ],
)
def test_what_is_no_wav_of_16_bits_is_refused_in_words(source: bytes, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        read_wav(source)


@given(st.integers(0, 60), st.binary(min_size=1, max_size=8))
def test_a_damaged_header_is_refused_or_read_but_never_more(at: int, damage: bytes) -> None:
    whole = wav(RAMP)
    with contextlib.suppress(BadRequest):
        assert len(read_wav(whole[:at] + damage + whole[at + len(damage) :]).samples) <= len(whole)
