"""`callbox lab`: does this build still sound right?"""

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import aiohttp
import numpy as np
import typer

from daemons import settings
from daemons.audio import TTS_RATE_HZ, Pcm, to_int16
from daemons.errors import BadRequest
from ops.bench.answers import ANSWERS
from ops.bench.speaking import Speaker
from ops.figures import JsonFile
from ops.lab import accuracy, self_test
from ops.lab import run as lab_run
from ops.lab.cases import Suite, cases
from ops.lab.signals import RATE_HZ, Signal, signal_of
from ops.private_box import Model
from ops.progress import count_bar
from ops.redis_server import RedisServer
from ops.worker import Worker

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def lab() -> None:
    """Calls that judge themselves."""


@app.command()
def run(
    suite: Annotated[Suite, typer.Option(help="Which cases: a few, those for any change, or all.")] = "fast",
    case: Annotated[
        list[str] | None, typer.Option(help="Only this one, of those in ops/lab/cases.toml; repeatable.")
    ] = None,
    times: Annotated[int, typer.Option(min=1, help="How often, one round of all cases after another.")] = 1,
    model: Model = "",
    keep: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where to put recordings and events.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Dial real calls to a box of its own, and judge each answer as the caller heard it.

    What was heard is laid beside what the speech worker made: gaps, dropouts, clipping, timbre, speed, clicks and
    booms; and how soon it came. Callers interrupt, cough, pause in mid-sentence, and are loud, quiet or in noise.
    Into the cases live-… a fault is put, which must be found.
    Exit code 1 when a gate is missed.
    """
    known = [one.name for one in cases().case]
    if unknown := [name for name in case or () if name not in known]:
        raise BadRequest(f"no such case: {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [cases().named(name) for name in case] if case else cases().of(suite)
    llm_model = model or settings.load().llm_model
    with count_bar("cases", times * len(chosen)) as on_case:
        done = asyncio.run(lab_run.run(chosen, times, llm_model=llm_model, on_case=on_case))
    if keep is not None:
        lab_run.keep(done.turns, keep)
    lab_run.report(done, llm_model).finish(json_file)


@app.command(name="self-test")
def self_test_command(
    recordings: Annotated[int, typer.Option(min=1, max=len(ANSWERS) // 2, help="That are said and spoilt.")] = 6,
    json_file: JsonFile = None,
) -> None:
    """Spoil good recordings in every way the lab looks for, and check that it finds each, and nothing else.

    The recordings are the box's own voice through Opus. Booms, wrong speed, distortion, gaps, loss, a narrow band and
    clipping, each in three strengths.
    """
    said = asyncio.run(_say(recordings))
    with count_bar("cases", self_test.cases(recordings)) as on_case:
        matrix = self_test.run(said, on_case)
    self_test.report(matrix).finish(json_file)


@app.command(name="accuracy")
def accuracy_command(
    turns: Annotated[int, typer.Option(min=len(accuracy.HOLES_MS), help="Answers that are judged.")] = 60,
    json_file: JsonFile = None,
) -> None:
    """Measure answers whose delay and whose holes are known: how wrong are the lab's own figures?

    Through a LiveKit server of its own, in the box's own voice.
    """
    said = [Pcm(to_int16(signal.astype(np.float32)), RATE_HZ) for signal in asyncio.run(_say(len(ANSWERS) // 2))]
    with tempfile.TemporaryDirectory(prefix="callbox-lab-") as place, count_bar("turns", turns) as on_turn:
        taken = asyncio.run(accuracy.run(said, turns, Path(place), on_turn))
    accuracy.report(taken).finish(json_file)


async def _say(count: int) -> list[Signal]:
    with tempfile.TemporaryDirectory(prefix="callbox-lab-") as place, RedisServer(Path(place)) as redis:
        async with Worker("tts", redis.url, Path(place)) as worker, aiohttp.ClientSession() as http:
            speaker = Speaker(worker, http)
            texts = [f"{one} {other}" for one, other in zip(ANSWERS[::2], ANSWERS[1::2], strict=True)]
            said = [await speaker.file(text) for text in texts[:count]]
    return [signal_of(Pcm(heard.samples, TTS_RATE_HZ)) for heard in said]
