"""Each measure finds what it is for, and only that."""

import math

import numpy as np
import pytest

from daemons.audio import TTS_RATE_HZ, Samples
from ops.bench import waves


def voice(seconds: float, hz: float = 180.0) -> Samples:
    """Harmonics whose strengths change slowly, as a vowel's."""
    at = np.arange(round(seconds * TTS_RATE_HZ)) / TTS_RATE_HZ
    wave = sum(np.sin(2 * np.pi * hz * n * at) * (2 + np.sin(2 * np.pi * at * n / 3)) / n for n in range(1, 12))
    samples: Samples = (1500 * np.asarray(wave)).astype(np.int16)
    return samples


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * TTS_RATE_HZ), np.int16)


def test_snr() -> None:
    speech = voice(1.0)
    assert waves.snr_db(speech, speech) == waves.SAME_SNR_DB
    noise = np.random.default_rng(0).normal(0, 0.1 * speech.std(), len(speech))
    assert waves.snr_db((speech + noise).astype(np.int16), speech) == pytest.approx(20, abs=0.5)
    assert waves.snr_db(speech[:-2_400], speech) < 15
    assert waves.snr_db(np.roll(speech, 3), speech, lag=5) > 25 > waves.snr_db(np.roll(speech, 3), speech)


def test_snr_of_a_part_where_it_fits_best() -> None:
    whole = np.concatenate([voice(0.5, 150), voice(0.5, 200)])
    assert waves.snr_in_db(whole[6_000:12_000], whole, 6_100) > 60
    assert waves.snr_in_db(whole[6_000:12_000], whole, 18_000) < 3
    assert math.isnan(waves.snr_in_db(whole, whole[:100], 0))


def test_a_cut_without_a_crossfade_clicks() -> None:
    smooth = voice(1.0)
    cut = np.concatenate([smooth[:12_000], -smooth[12_040:]])
    assert waves.click(smooth, 12_000) < 1.5
    assert waves.click(cut, 12_000) > 3


def test_a_step_in_level() -> None:
    steady = voice(1.0)
    stepped = np.concatenate([steady[:12_000], steady[12_000:] // 2])
    plain_db = waves.level_step_db(steady, 12_000)
    assert waves.level_step_db(stepped, 12_000) == pytest.approx(-6 + plain_db, abs=0.1)
    paused = np.concatenate([steady[:12_000], silence(0.2), steady[12_000:]])
    assert waves.level_step_db(paused, 13_000) == pytest.approx(plain_db, abs=0.5)
    assert math.isnan(waves.level_step_db(silence(1.0), 12_000))


@pytest.mark.parametrize("hz", [110.0, 180.0, 260.0])
def test_pitch(hz: float) -> None:
    found = waves.pitch_hz(voice(0.5, hz))
    assert np.nanmedian(found) == pytest.approx(hz, rel=0.02)
    assert np.isnan(waves.pitch_hz(silence(0.5))).all()
    hiss = np.random.default_rng(0).normal(0, 2_000, 12_000).astype(np.int16)
    assert np.isnan(waves.pitch_hz(hiss)).mean() > 0.8


def test_a_melody_that_falls_and_jumps() -> None:
    pieces = [voice(0.15, hz) for hz in (200.0, 160.0, 240.0)]
    melody = waves.Melody.at(waves.pitch_hz(np.concatenate(pieces)), len(pieces[0]) * 2)
    assert melody.fall == pytest.approx(12 * math.log2(160 / 200), abs=0.6)
    assert melody.jump == pytest.approx(12 * math.log2(240 / 160), abs=0.6)
    assert math.isnan(waves.Melody.at(waves.pitch_hz(silence(1.0)), 12_000).jump)


def test_a_pause_near_a_place_and_none_far_away() -> None:
    audio = np.concatenate([voice(0.5), silence(0.3), voice(0.5), silence(0.1), voice(0.5)])
    assert waves.pause_ms(audio, round(0.8 * TTS_RATE_HZ)) == pytest.approx(300, abs=10)
    assert waves.pause_ms(audio, round(1.35 * TTS_RATE_HZ)) == pytest.approx(100, abs=10)
    assert waves.pause_ms(audio, round(0.25 * TTS_RATE_HZ)) == 0


def test_a_part_is_found_in_the_whole() -> None:
    whole = np.concatenate([voice(0.6, 150), voice(0.4, 220), silence(0.1), voice(0.6, 180)])
    place, likeness = waves.place_in(whole, whole[14_400:24_000], expected=12_000)
    assert place == pytest.approx(14_400, abs=240)
    assert likeness > 0.9
    assert waves.place_in(voice(0.2), voice(0.4), 0)[1] == 0


def test_what_is_said_twice() -> None:
    one, other = voice(0.6, 150), np.concatenate([voice(0.3, 220), silence(0.1), voice(0.2, 120)])
    twice = np.concatenate([one, one])
    assert waves.is_repeated(twice, 0, len(one), len(twice))
    both = np.concatenate([one, other])
    assert not waves.is_repeated(both, 0, len(one), len(both))


def test_what_is_broken_says_how() -> None:
    good = voice(1.0)
    assert waves.broken(good) == ""
    assert "empty" in waves.broken(good[:100])
    assert "silent" in waves.broken(silence(1.0))
    assert "clipped" in waves.broken((good.astype(int) * 20).clip(-32768, 32767).astype(np.int16))
    assert "offset" in waves.broken(good + np.int16(500))
    assert "hole" in waves.broken(np.concatenate([good, silence(1.5), good]))
