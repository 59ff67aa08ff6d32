"""`callbox lab`: does this build still sound right?"""

import asyncio
import tempfile
from collections.abc import Sequence
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
from ops.lab import accuracy, advice, evidence, page, self_test, verdict
from ops.lab import run as lab_run
from ops.lab.callers import Voice
from ops.lab.cases import Case, Suite, cases
from ops.lab.compare import compare as compared
from ops.lab.replay import replayed
from ops.lab.signals import RATE_HZ, Signal, signal_of
from ops.private_box import Model
from ops.progress import count_bar
from ops.redis_server import RedisServer
from ops.worker import Worker

app = typer.Typer(rich_markup_mode=None)


baseline_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="The run that others are compared with.")
app.add_typer(baseline_app, name="baseline")

Out = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="For the report and what it rests on; one of its own in var/lab.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The name of one in var/lab, or a folder.")]


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
    out: Out = None,
    json_file: JsonFile = None,
) -> None:
    """Dial real calls to a box of its own, and judge each answer as the caller heard it.

    What was heard is laid beside what the speech worker made: gaps, dropouts, clipping, timbre, speed, clicks and
    booms; and how soon it came. Callers interrupt, cough, pause in mid-sentence, and are loud, quiet or in noise.
    Into the cases live-… a fault is put, which must be found. It leaves a report to look at and to listen to, and is
    compared with the baseline, if one is set. Exit code 1 when a gate is missed.
    """
    known = [one.name for one in cases().case]
    if unknown := [name for name in case or () if name not in known]:
        raise BadRequest(f"no such case: {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [cases().named(name) for name in case] if case else cases().of(suite)
    _dial(chosen, Voice.of, times=times, model=model, out=out, json_file=json_file)


@app.command()
def replay(
    call: Annotated[Path, typer.Argument(metavar="RUN/CALL", help="A run in var/lab, or its folder, and its call.")],
    model: Model = "",
    out: Out = None,
    json_file: JsonFile = None,
) -> None:
    """Say once more what a caller said in a call that was kept, to this build, and judge the answers."""
    voice = replayed(evidence.read(_folder(call.parent)), call.name)

    async def voice_of(_settings: settings.Settings, _case: Case) -> Voice:
        return voice

    _dial([voice.case], voice_of, times=1, model=model, out=out, json_file=json_file)


@app.command()
def report(run: RunFolder) -> None:
    """Make report.html and report.md again, from what a run has left in its folder."""
    typer.echo(page.lay(_folder(run), _runs_dir()))


@app.command()
def compare(before: RunFolder, after: RunFolder, json_file: JsonFile = None) -> None:
    """Lay two runs side by side, turn by turn. Exit code 1 when a figure got worse by more than chance."""
    compared(evidence.read(_folder(before)), evidence.read(_folder(after))).finish(json_file)


@baseline_app.command(name="set")
def set_baseline(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="The newest in var/lab when not given.")] = None,
) -> None:
    """Compare later runs with this one, and keep it for as long."""
    kept = evidence.kept(_runs_dir())
    folder = _folder(run) if run is not None else kept[-1] if kept else None
    if folder not in kept:
        raise BadRequest(
            "a baseline is a run in var/lab; there is none" if folder is None else f"{folder} is not there"
        )
    evidence.set_baseline(_runs_dir(), folder)
    typer.echo(f"{folder.name} is the baseline")


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


def _dial(
    chosen: Sequence[Case],
    voice_of: lab_run.VoiceOf,
    *,
    times: int,
    model: str,
    out: Path | None,
    json_file: Path | None,
) -> None:
    """A run, its report, and its verdict."""
    folder = out.absolute() if out else evidence.new_folder(_runs_dir())
    evidence.want_free(folder)
    llm_model = model or settings.load().llm_model
    dialled: list[evidence.Box] = []
    with count_bar("cases", times * len(chosen)) as on_case:
        done = asyncio.run(
            lab_run.run(
                chosen,
                times,
                voice_of,
                llm_model=llm_model,
                on_case=on_case,
                on_end=lambda box: dialled.append(evidence.Box.of(box)),
            )
        )
    found = verdict.report(done, llm_model)
    evidence.write(folder, done.turns, found, dialled[0])
    evidence.prune(_runs_dir())
    written = page.lay(folder, _runs_dir())
    quiet = str(json_file) == "-"
    try:
        found.finish(json_file)
    finally:
        for line in (*advice.in_lines(found.as_data()["bounds"]), str(written)):
            typer.echo(line, err=quiet)
        if (other := evidence.baseline(_runs_dir())) is not None and not quiet:
            compared(evidence.read(other), evidence.read(folder)).show()


def _runs_dir() -> Path:
    return settings.load().var_dir.absolute() / "lab"


def _folder(run: Path) -> Path:
    """Of a run by its name in var/lab, or by its place."""
    named = _runs_dir() / run
    return named if named.is_dir() else run.absolute()


async def _say(count: int) -> list[Signal]:
    with tempfile.TemporaryDirectory(prefix="callbox-lab-") as place, RedisServer(Path(place)) as redis:
        async with Worker("tts", redis.url, Path(place)) as worker, aiohttp.ClientSession() as http:
            speaker = Speaker(worker, http)
            texts = [f"{one} {other}" for one, other in zip(ANSWERS[::2], ANSWERS[1::2], strict=True)]
            said = [await speaker.file(text) for text in texts[:count]]
    return [signal_of(Pcm(heard.samples, TTS_RATE_HZ)) for heard in said]
