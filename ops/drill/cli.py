"""`callbox drill`: faults on purpose, and proof that nothing is lost by them."""

import asyncio
import contextlib
import faulthandler
import logging
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from daemons import settings
from ops.drill.disconnects.report import report as report_disconnects
from ops.drill.disconnects.run import drill as drill_disconnects
from ops.drill.disconnects.run import steps as steps_of_disconnects
from ops.drill.faults.report import report
from ops.drill.faults.run import drill as run_drill
from ops.drill.mixer import PLAYING_S
from ops.drill.mixer import drill as drill_mixer
from ops.drill.registry.run import drill as drill_registry
from ops.drill.workers import drill as drill_workers
from ops.figures import JsonFile
from ops.progress import console, count_bar

MIXER_PATIENCE_S = 60

app = typer.Typer(rich_markup_mode=None)

Seed = Annotated[int | None, typer.Option(metavar="S", help="Draw the same things again; chosen when not given.")]


@dataclass
class _Scene:
    """Where a drill's servers write. It is kept when a drill says so, or fails."""

    folder: Path
    keep: bool = True


@contextlib.contextmanager
def _scene(name: str) -> Iterator[_Scene]:
    scene = _Scene(Path(tempfile.mkdtemp(prefix=f"callbox-{name}-")))
    try:
        yield scene
    except KeyboardInterrupt:
        scene.keep = False
        raise
    finally:
        if scene.keep:
            console.print(f"what its servers wrote is kept in {scene.folder}")
        else:
            shutil.rmtree(scene.folder, ignore_errors=True)


@app.command()
def faults(
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="How many faults, one after the other.")] = 100,
    seed: Seed = None,
    worlds: Annotated[int, typer.Option(metavar="W", min=1, help="How many registries side by side.")] = 8,
    json_file: JsonFile = None,
) -> None:
    """Strike real workers, holders and their Redis, and check that no slot is used twice, none leaks, no call is lost.

    Each world has a redis-server, agents and workers that reach it through a TCP proxy, the monitor, and more callers
    than it has room for. A round is one fault, drawn at random: kill -9, SIGSTOP, connections cut, half-open, slow or
    parted, replies lost after the request was carried out, Redis restarted with and without its data, or hung. An
    oracle reads what every process wrote down and what the registry showed.
    """
    seed = random.randrange(2**31) if seed is None else seed  # noqa: S311 - chooses faults
    with _scene("faults") as scene, count_bar("rounds", rounds) as more:
        outcome = asyncio.run(run_drill(rounds, seed, worlds, folder=scene.folder, on_round=lambda: more(1)))
        scene.keep = bool(outcome.wrong)
    for wrong in outcome.wrong:
        console.print(str(wrong), markup=False)
    report(outcome, rounds, worlds).finish(json_file)


@app.command()
def disconnects(
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="How many clients go away.")] = 1000,
    closes: Annotated[int, typer.Option(metavar="N", min=1, help="In how many of them, by kind, work is timed.")] = 24,
    seed: Seed = None,
    json_file: JsonFile = None,
) -> None:
    """Crowd the speech and chat workers, leave them at any moment in any manner, and look for what is left.

    A real worker of each kind, with the box's own models. One client more than there are places, at every door: one is
    refused, and the others have what they have alone. Then clients that go away: in the head or the body of a request,
    in a handshake, before or after the first byte of an answer, by a close, a reset, half of a close, or silence. After
    them no work, place, connection, task or memory may be left, every door answers as before, and the metrics agree
    with what the clients did. Last, from a client's close to the end of its work.
    """
    seed = random.randrange(2**31) if seed is None else seed  # noqa: S311 - chooses ways to leave
    count = steps_of_disconnects(rounds, closes)
    with _scene("disconnects") as scene, count_bar("crowds, rounds and closes", count) as more:
        drilling = drill_disconnects(rounds, closes, seed, folder=scene.folder, on_step=lambda: more(1))
        outcome = asyncio.run(drilling)
        scene.keep = bool(outcome.wrong)
    for wrong in outcome.wrong:
        console.print(str(wrong), markup=False)
    if outcome.wrong:
        console.print(
            f"again: callbox drill disconnects --rounds {rounds} --closes {closes} --seed {seed}", markup=False
        )
    report_disconnects(outcome, rounds).finish(json_file)


@app.command()
def registry(
    ops: Annotated[int, typer.Option("--ops", metavar="N", min=1, help="How many operations.")] = 100_000,
    seed: Seed = None,
    clients: Annotated[int, typer.Option(metavar="N", min=1, max=256, help="How many ask at once.")] = 1,
    json_file: JsonFile = None,
) -> None:
    """Ask the registry's scripts and a model of them the same, over and over, and compare every answer.

    One client: random operations of few workers and calls, clocks that leap and fall, replies that get lost, data that
    get lost; the whole registry is compared every 20 operations, and what must always hold is looked for in it. Several
    clients: each script says its place in the sequence, in which the model must answer the same, and which must respect
    real time. The first difference ends it, with the operations before it.
    """
    seed = random.randrange(2**31) if seed is None else seed  # noqa: S311 - chooses operations
    drill_registry(ops, seed, clients).finish(json_file)


@app.command()
def workers(
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Of 18: 3 roles, 2 faults, 3 phases of a turn.")] = 36,
    model: Annotated[
        str, typer.Option(help="A name in etc/models.toml, or a path; the box's own when not given.")
    ] = "",
    json_file: JsonFile = None,
) -> None:
    """Kill and stop stt, llm and tts while a caller is heard, thought about and spoken to: calls lost, silence heard.

    Through LiveKit in a box of its own with one worker of each role. A worker that is stopped is found and restarted
    after 20 to 25 s, so half of the rounds take a minute each.
    """
    with count_bar("rounds", rounds) as on_round:
        report = asyncio.run(drill_workers(rounds, llm_model=model or settings.load().llm_model, on_round=on_round))
    report.finish(json_file)


@app.command()
def mixer(
    teardown: Annotated[float, typer.Option(metavar="S", min=6, help="How many seconds leaving the room takes.")] = 30,
    json_file: JsonFile = None,
) -> None:
    """Kill the media server under a call's ambience and let the tear-down take its time: turns a second, memory, end.

    The agent's own playout, mixer and room, and a caller who hears them until then: a room lets frames wait while its
    server is away. Beside it a bare source of LiveKit's, which plays into nothing, and takes all at once when closed.
    """
    logging.getLogger("livekit").setLevel(logging.CRITICAL)  # it tells of each attempt to reach what is killed
    faulthandler.dump_traceback_later(teardown + MIXER_PATIENCE_S, exit=True)  # a loop without a pause holds all up
    with _scene("mixer") as scene, count_bar("seconds", round(PLAYING_S + teardown)) as on_second:
        report = asyncio.run(drill_mixer(teardown, folder=scene.folder, on_second=on_second))
        scene.keep = False
    faulthandler.cancel_dump_traceback_later()
    report.finish(json_file)
