"""Piper's voices: slower than hibari, in many languages, and deterministic, since their noise is turned off.

Piper is GPL-3.0, so it stays a program of its own: a line of text on its stdin, a WAV file for it in a folder.
"""

import contextlib
import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr

from daemons.audio import TTS_RATE_HZ, FloatSamples, read_wav, to_float
from daemons.errors import ConfigurationError, Unavailable
from daemons.tts.engine import Phrase

VERSION = "1.8.0"
STEP_S = 0.02  # how soon a cancel is seen
LOAD_S = 120.0
SAY_S = 60.0  # a sentence, on a machine that is far too slow
END_S = 5.0
KEPT_LINES = 5
_WROTE = re.compile(rb"Wrote (.+\.wav)\s*$")
_NOTHING_SAID = b"channels not specified"  # its last word when there is nothing to write into a WAV file


class Piper:
    def __init__(self, program: Path, voice: Path) -> None:
        """`program` is the command `piper`; `voice` a folder with one NAME.onnx and NAME.onnx.json."""
        self.voice = voice.name
        self.overlap = 0
        self._program = program
        self._folder = voice
        self._running: _Program | None = None

    def load(self) -> None:
        models = sorted(self._folder.glob("*.onnx"))
        if len(models) != 1:
            raise ConfigurationError(f"{self._folder} must hold one voice of piper, a .onnx file; it has {len(models)}")
        self._model = models[0]
        if shutil.which(self._program) is None:
            place = self._program.parent.parent
            raise ConfigurationError(
                f"piper is not installed at {self._program}; install it apart from Callbox, for its licence is GPL-3.0 "
                f"(python3 -m venv {place} && {place}/bin/pip install piper-tts=={VERSION}), "
                "or set CALLBOX_PIPER_BIN to where it is"
            )
        self._start(1.0)

    def synthesize(self, phrase: Phrase, *, seed: int, speed: float) -> Iterator[FloatSamples]:
        """As TtsEngine; while piper works, empty arrays come, so that whoever asks may stop asking."""
        text = " ".join(phrase.text.split())
        if phrase.is_open and text[-1:].isalnum():
            text += ","  # for a melody that goes on
        try:
            try:
                yield from self._said(text, speed)
            except _Died:
                yield from self._said(text, speed)
        except _Died as died:
            if _NOTHING_SAID not in died.last_words:
                said = died.last_words.decode(errors="replace").strip()
                raise Unavailable(f"piper ended twice over one sentence: {said[-300:]}") from died

    def close(self) -> None:
        if self._running is not None:
            self._running.end()
            self._running = None

    def _said(self, text: str, speed: float) -> Iterator[FloatSamples]:
        program = self._running
        if program is None or not program.is_alive or program.speed != speed:
            program = self._start(speed)
        is_done = False
        try:
            yield from program.say(text)
            is_done = True
        finally:
            if not is_done:
                self._start(speed)  # it loads while nobody waits

    def _start(self, speed: float) -> "_Program":
        self.close()
        self._running = _Program(self._program, self._model, speed)
        return self._running


class _Died(Exception):
    def __init__(self, last_words: bytes) -> None:
        super().__init__("piper has ended")
        self.last_words = last_words


class _Program:
    """One run of piper; ends with the thread that started it."""

    def __init__(self, program: Path, model: Path, speed: float) -> None:
        self.speed = speed
        self._folder = tempfile.TemporaryDirectory(prefix="callbox-piper-")
        self._process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", program, "--model", model, "--output-dir", self._folder.name),
                *("--length-scale", f"{1 / speed:.4f}", "--noise-scale", "0", "--noise-w-scale", "0"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        )
        self._lines: deque[bytes] = deque(maxlen=KEPT_LINES)
        self._rest = b""
        self._deadline_s = time.monotonic() + LOAD_S

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def say(self, text: str) -> Iterator[FloatSamples]:
        """The audio of one line, after empty arrays while it is made. Raises _Died, or Unavailable when it hangs."""
        assert self._process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        try:
            self._process.stdin.write(text.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            self._read()
            raise _Died(b"\n".join(self._lines)) from None
        deadline_s = max(self._deadline_s, time.monotonic() + SAY_S)
        while (written := self._read()) is None:
            if time.monotonic() > deadline_s:
                raise Unavailable(f"piper has not said a sentence within {SAY_S:g} s")
            yield np.zeros(0, np.float32)
        self._deadline_s = 0.0
        pcm = read_wav(written)
        written.unlink()
        yield soxr.resample(to_float(pcm.samples), pcm.rate_hz, TTS_RATE_HZ)

    def end(self) -> None:
        self._process.kill()
        self._process.wait(END_S)
        for pipe in (self._process.stdin, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # a line that it never read
                    pipe.close()
        self._folder.cleanup()

    def _read(self) -> Path | None:
        """The file that was written, when it is there within STEP_S. Raises _Died."""
        assert self._process.stderr is not None  # noqa: S101 - for the type checker: it is a pipe
        if not select.select([self._process.stderr], [], [], STEP_S)[0]:
            return None
        if not (said := os.read(self._process.stderr.fileno(), 65536)):
            raise _Died(b"\n".join(self._lines))
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            self._lines.append(line)
            if found := _WROTE.search(line):
                return Path(os.fsdecode(found[1]))
        return None
