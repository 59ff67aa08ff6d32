"""`callbox lab`: does this build still sound right?"""

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import aiohttp
import typer

from daemons import settings
from daemons.audio import TTS_RATE_HZ, Pcm
from daemons.errors import BadRequest
from ops.bench.answers import ANSWERS
from ops.bench.speaking import Speaker
from ops.figures import JsonFile
from ops.lab import advice, evidence, page, self_test
from ops.lab import run as lab_run
from ops.lab.cases import cases
from ops.lab.signals import Signal, signal_of
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
    case: Annotated[
        list[str] | None, typer.Option(help="Only this one, of those in ops/lab/cases.toml; repeatable.")
    ] = None,
    model: Model = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For the report and what it rests on; one of its own in var/lab.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Dial real calls to a box of its own, and judge each answer as the caller heard it.

    What was heard is laid beside what the speech worker made: gaps, dropouts, clipping, timbre, speed, clicks and
    booms; and how soon it came. It leaves a report to look at and to listen to. Exit code 1 when a gate is missed.
    """
    known = cases()
    if unknown := [name for name in case or () if name not in known]:
        raise BadRequest(f"no such case: {', '.join(unknown)}; there are {', '.join(known)}")
    chosen = [known[name] for name in case or known]
    box = settings.load()
    folder = out.absolute() if out else evidence.new_folder(_runs_dir(box))
    evidence.want_free(folder)
    llm_model = model or box.llm_model
    dialled: list[evidence.Box] = []
    with count_bar("cases", len(chosen)) as on_case:
        judged = asyncio.run(
            lab_run.run(
                chosen,
                llm_model=llm_model,
                on_case=on_case,
                on_end=lambda private: dialled.append(evidence.Box.of(private)),
            )
        )
    found = lab_run.report(judged, llm_model)
    evidence.write(folder, judged, found, dialled[0])
    evidence.prune(_runs_dir(box))
    written = page.lay(folder, _runs_dir(box))
    try:
        found.finish(json_file)
    finally:
        for line in (*advice.in_lines(found.as_data()["bounds"]), str(written)):
            typer.echo(line, err=str(json_file) == "-")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The name of one in var/lab, or a folder.")],
) -> None:
    """Make report.html and report.md again, from what a run has left in its folder."""
    runs_dir = _runs_dir(settings.load())
    folder = runs_dir / run
    typer.echo(page.lay(folder if folder.is_dir() else run.absolute(), runs_dir))


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


def _runs_dir(box: settings.Settings) -> Path:
    return box.var_dir.absolute() / "lab"


async def _say(count: int) -> list[Signal]:
    with tempfile.TemporaryDirectory(prefix="callbox-lab-") as place, RedisServer(Path(place)) as redis:
        async with Worker("tts", redis.url, Path(place)) as worker, aiohttp.ClientSession() as http:
            speaker = Speaker(worker, http)
            texts = [f"{one} {other}" for one, other in zip(ANSWERS[::2], ANSWERS[1::2], strict=True)]
            said = [await speaker.file(text) for text in texts[:count]]
    return [signal_of(Pcm(heard.samples, TTS_RATE_HZ)) for heard in said]
