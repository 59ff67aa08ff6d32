"""Sounds that the persona names: what is read, what is refused in words, and that no click is heard between rounds."""

import os
import wave
from pathlib import Path

import numpy as np
import pytest

from daemons.agent import persona
from daemons.agent.persona import Persona
from daemons.agent.sounds import LONGEST_S, SEAM_S, SHORTEST_S, read_loop
from daemons.audio import TTS_RATE_HZ, Pcm, Samples, level_dbfs, wav_bytes
from daemons.errors import ConfigurationError
from daemons.settings import ROOT

SEAM = round(SEAM_S * TTS_RATE_HZ)


def tone(seconds: float, hz: float = 233.3, rate_hz: int = TTS_RATE_HZ) -> Pcm:
    wave_form = 8000 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)
    return Pcm(wave_form.astype(np.int16), rate_hz)


def named(folder: Path, ambience: str, gain_db: str = "-12") -> Persona:
    """The installed persona with this ambience, loaded from `folder`."""
    text = (ROOT / "etc/persona.toml").read_text(encoding="utf-8")
    text = text.replace('ambience = ""', f"ambience = {ambience}").replace(
        "ambience_db = -12", f"ambience_db = {gain_db}"
    )
    path = folder / "persona.toml"
    path.write_text(text, encoding="utf-8")
    return persona.load(path)


def loop_of(folder: Path, pcm: Pcm) -> Samples:
    (folder / "sound.wav").write_bytes(wav_bytes(pcm))
    loop = named(folder, '"sound.wav"').sounds.ambience
    assert loop is not None
    return loop


def test_no_sound_is_heard_by_default() -> None:
    installed = persona.load(ROOT / "etc/persona.toml")
    assert (installed.sounds.ambience, installed.sounds.thinking) == (None, None)
    assert not installed.sounds.mixer().sounds(thinking=True)


def test_a_file_beside_the_persona_is_read_as_24_khz_mono(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "sound.wav"), "wb") as wav:
        wav.setnchannels(2)
        wav.setsampwidth(2)
        wav.setframerate(48_000)
        left = tone(2, rate_hz=48_000).samples
        wav.writeframes(np.stack([left, np.zeros_like(left)], axis=1).tobytes())
    loop = named(tmp_path, '"sound.wav"').sounds.ambience
    assert loop is not None
    assert len(loop) == 2 * TTS_RATE_HZ - SEAM
    assert level_dbfs(loop) == pytest.approx(level_dbfs(left) - 6, abs=0.2)


@pytest.mark.parametrize("seconds", [SHORTEST_S, 1.234])
def test_where_the_loop_begins_anew_it_does_not_click(tmp_path: Path, seconds: float) -> None:
    """A tone that does not fit its file would jump there."""
    pcm = tone(seconds)
    loop = loop_of(tmp_path, pcm)
    steps = np.abs(np.diff(np.tile(loop.astype(int), 3)))
    assert np.abs(np.diff(np.tile(pcm.samples.astype(int), 3))).max() > 2 * np.abs(np.diff(pcm.samples)).max()
    assert steps.max() <= 1.3 * np.abs(np.diff(pcm.samples)).max()


def test_the_loop_is_the_file_but_for_its_seam(tmp_path: Path) -> None:
    pcm = tone(1)
    assert np.array_equal(loop_of(tmp_path, pcm)[SEAM:], pcm.samples[SEAM:-SEAM])


def test_calls_share_a_sound_until_its_file_changes(tmp_path: Path) -> None:
    first = loop_of(tmp_path, tone(1))
    assert named(tmp_path, '"sound.wav"').sounds.ambience is first
    changed = loop_of(tmp_path, tone(2))
    assert (len(first), len(changed)) == (TTS_RATE_HZ - SEAM, 2 * TTS_RATE_HZ - SEAM)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, "No such file"),
        (b"", "not a PCM WAV file"),
        (b"ID3 and so on", "not a PCM WAV file"),
        (wav_bytes(Pcm(np.ones(1, np.int16), TTS_RATE_HZ)), "lasts 4.17e-05 s"),
        (wav_bytes(Pcm(np.zeros(0, np.int16), TTS_RATE_HZ)), "lasts 0 s"),
        (wav_bytes(tone(SHORTEST_S - 0.01)), f"lasts {SHORTEST_S:g} to {LONGEST_S:g} s"),
        (wav_bytes(Pcm(np.zeros(8000 * 61, np.int16), 8000)), "lasts 61 s"),
        (wav_bytes(Pcm(np.zeros(1000, np.int16), 100)), "has 100 samples a second"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_words(tmp_path: Path, written: bytes | None, said: str) -> None:
    path = tmp_path / "sound.wav"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(ConfigurationError) as error:
        named(tmp_path, '"sound.wav"')
    assert said in str(error.value)
    assert f"persona.toml: sounds.ambience: {path}" in str(error.value)


def test_two_hours_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(wav_bytes(tone(1)))
    os.truncate(path, 2 * 3600 * 2 * TTS_RATE_HZ)
    with pytest.raises(ConfigurationError, match="has 346 MB; a sound has at most 30"):
        named(tmp_path, '"sound.wav"')


@pytest.mark.parametrize(
    ("ambience", "gain_db", "said"),
    [
        ("5", "-12", "the path of a WAV file is wanted"),
        ('"."', "-12", "is no file"),
        ('"/dev/zero"', "-12", "is no file"),
        ('""', "99", "less than or equal to 12"),
        ('""', "nan", "sounds.ambience_db"),
    ],
)
def test_what_names_no_sound_is_refused_in_words(tmp_path: Path, ambience: str, gain_db: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        named(tmp_path, ambience, gain_db)


def test_a_path_may_be_absolute(tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.wav"
    path.write_bytes(wav_bytes(tone(1)))
    (tmp_path / "etc").mkdir()
    assert named(tmp_path / "etc", f'"{path}"').sounds.ambience is read_loop(path)
