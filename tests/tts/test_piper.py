import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import psutil
import pytest

from daemons import settings as settings_module
from daemons.audio import TTS_RATE_HZ, FloatSamples
from daemons.errors import ConfigurationError, Unavailable
from daemons.tts.engine import ENGINES, Phrase, TtsEngine, piper_program
from daemons.tts.engines import piper as piper_module
from daemons.tts.engines.piper import Piper
from tests.worker_process import WorkerProcess

SETTINGS = settings_module.load()
VOICE = SETTINGS.models_dir / SETTINGS.tts_model
needs_piper = pytest.mark.skipif(
    not (shutil.which(piper_program(SETTINGS)) and VOICE.exists()),
    reason="piper is not installed, or its voice is not there (callbox models pull joe-us)",
)
LONG = Phrase("and so it goes on " * 15)


def say(engine: TtsEngine, phrase: Phrase | str, speed: float = 1.0) -> FloatSamples:
    phrase = Phrase(phrase) if isinstance(phrase, str) else phrase
    return np.concatenate([np.zeros(0, np.float32), *engine.synthesize(phrase, seed=0, speed=speed)])


def programs() -> list[psutil.Process]:
    """Pipers that this process has started and that run."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie too
            if "--noise-scale" in child.cmdline():
                found.append(child)
    return found


def test_without_the_program_it_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "v.onnx").touch()
    with pytest.raises(ConfigurationError, match=r"pip install piper-tts.*CALLBOX_PIPER_BIN"):
        Piper(tmp_path / "bin/piper", tmp_path).load()


def test_without_a_voice_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        Piper(tmp_path / "bin/piper", tmp_path).load()


@pytest.fixture(scope="module")
def engine() -> Iterator[TtsEngine]:
    engine = ENGINES["piper"](SETTINGS)
    engine.load()
    yield engine
    engine.close()
    assert programs() == []


@needs_piper
@pytest.mark.integration
class TestPiper:
    def test_the_same_words_give_the_same_samples(self, engine: TtsEngine) -> None:
        first = say(engine, "Good morning, how can I help you?")
        assert 24_000 < len(first) < 96_000
        assert 0.05 < np.abs(first).max() <= 1.0
        assert np.array_equal(say(engine, "Good morning, how can I help you?"), first)

    def test_speed_is_speed(self, engine: TtsEngine) -> None:
        text = "This sentence takes about two seconds."
        assert len(say(engine, text, speed=1.5)) < 0.8 * len(say(engine, text))

    def test_an_open_phrase_does_not_end_as_a_sentence_does(self, engine: TtsEngine) -> None:
        opened, ended = say(engine, Phrase("The next train", after="to")), say(engine, "The next train.")
        assert len(opened) != len(ended)
        assert np.array_equal(opened, say(engine, "The next train,"))

    def test_lines_and_dashes_in_the_text_are_text(self, engine: TtsEngine) -> None:
        assert np.array_equal(say(engine, "--help\nme  now"), say(engine, "--help me now"))

    def test_a_cancel_ends_its_work_at_once_and_the_next_phrase_is_said(self, engine: TtsEngine) -> None:
        say(engine, "Hello.")
        [working] = programs()
        saying = engine.synthesize(LONG, seed=0, speed=1.0)
        began_s = time.monotonic()
        assert len(next(saying)) == 0
        assert time.monotonic() - began_s < 1
        saying.close()  # type: ignore[attr-defined]  # it is a generator
        assert not working.is_running() or working.status() == psutil.STATUS_ZOMBIE
        assert len(say(engine, "Hello.")) > 5_000

    def test_a_program_that_was_killed_is_started_again(self, engine: TtsEngine) -> None:
        said = say(engine, "Hello there.")
        [before] = programs()
        os.kill(before.pid, signal.SIGKILL)
        before.wait(5)
        assert np.array_equal(say(engine, "Hello there."), said)
        assert [program.pid for program in programs()] != [before.pid]

    def test_a_program_that_dies_over_a_sentence_is_started_again(self, engine: TtsEngine) -> None:
        say(engine, "Hello.")
        [before] = programs()
        parts: list[FloatSamples] = []
        for part in engine.synthesize(LONG, seed=0, speed=1.0):
            if not parts:
                os.kill(before.pid, signal.SIGKILL)
            parts.append(part)
        assert len(np.concatenate(parts)) > 24_000 * 5

    def test_one_that_dies_again_and_again_is_told_of(self, engine: TtsEngine) -> None:
        def say_while_it_is_killed() -> None:
            for _ in engine.synthesize(LONG, seed=0, speed=1.0):
                for program in programs():
                    program.kill()

        with pytest.raises(Unavailable, match="ended twice"):
            say_while_it_is_killed()
        assert len(say(engine, "Hello.")) > 5_000

    def test_one_that_hangs_is_given_up(self, engine: TtsEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        say(engine, "Hello.")
        monkeypatch.setattr(piper_module, "SAY_S", 0.5)
        [program] = programs()
        program.suspend()
        with pytest.raises(Unavailable, match="within"):
            say(engine, "Hello.")
        assert not program.is_running() or program.status() == psutil.STATUS_ZOMBIE
        monkeypatch.undo()
        assert len(say(engine, "Hello.")) > 5_000


@needs_piper
@pytest.mark.integration
async def test_the_worker_speaks_with_it_and_takes_it_along_when_it_ends(redis_url: str, tmp_path: Path) -> None:
    with WorkerProcess("tts", redis_url, tmp_path, tts_engine="piper") as worker:
        assert worker.health()["model"] == "piper/joe-us"
        program = next(child for child in psutil.Process(worker.pid).children() if "--noise-scale" in child.cmdline())
        async with aiohttp.ClientSession(worker.url) as http:
            body = {"text": "The next train to Boston leaves at half past six."}
            async with http.post("/tts/stream", json=body) as answer:
                assert answer.status == 200
                pcm = await answer.read()
        worker.end()
    assert 2 < len(pcm) / 2 / TTS_RATE_HZ < 5
    assert not program.is_running()
