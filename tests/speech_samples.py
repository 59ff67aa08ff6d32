"""Speech to test with: Debian's pocketsphinx-testdata, five LibriVox clips with their words."""

import re
from pathlib import Path

import jiwer
import pytest

from daemons.audio import STT_RATE_HZ, FloatSamples, read_wav, to_float

LIBRIVOX = Path("/usr/share/pocketsphinx/test/data/librivox")
needs_librivox = pytest.mark.skipif(not LIBRIVOX.exists(), reason="Debian's pocketsphinx-testdata is not installed")


def librivox() -> list[tuple[FloatSamples, str]]:
    """(float32 [n] at 16 kHz, words) of each clip."""
    lines = (LIBRIVOX / "transcription").read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"<s> (.*) </s> \((.*)\)", line) for line in lines]
    return [(speech_in(LIBRIVOX / f"{line[2]}.wav"), line[1]) for line in found if line]


def speech_in(path: Path) -> FloatSamples:
    return to_float(read_wav(path).resampled(STT_RATE_HZ).samples)


def plain(text: str) -> str:
    """Lower case, words alone, so that two spellings of the same words are equal."""
    text = text.lower().replace("mr.", "mister").replace("-", " ")
    return " ".join(re.sub(r"[^\w\s']", " ", text).split())


def word_error_rate(said: str, heard: str) -> float:
    return float(jiwer.wer(plain(said), plain(heard)))
