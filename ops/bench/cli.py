"""`callbox bench`: what things cost, measured side by side in one run."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer

from daemons import settings
from ops.bench import barge_in as barge_in_bench
from ops.bench import endpointing as endpointing_bench
from ops.bench import golden, pauses
from ops.bench import health as health_bench
from ops.bench import llm as llm_bench
from ops.bench import priorities as priorities_bench
from ops.bench import qwen3 as qwen3_bench
from ops.bench import registry as registry_bench
from ops.bench import stt as stt_bench
from ops.bench import tts as tts_bench
from ops.bench import turns as turns_bench
from ops.bench.answers import ANSWERS
from ops.bench.load import report as load_report
from ops.bench.load import run as load_bench
from ops.bench.soak import report as soak_report
from ops.bench.soak import run as soak_bench
from ops.bench.tts_page import page
from ops.figures import JsonFile, write_json
from ops.private_box import Model
from ops.progress import console, count_bar

Speech = Annotated[Path, typer.Option(metavar="FOLDER", help="WAV files, and their words in a file `transcription`.")]

app = typer.Typer(rich_markup_mode=None)


@app.command()
def registry(
    rounds: Annotated[int, typer.Option(min=1, help="How often one client runs each script.")] = 2000,
    clients: Annotated[int, typer.Option(min=1, max=64, help="How many clients share the registry then.")] = 32,
    seconds: Annotated[float, typer.Option(min=0.5, help="For how long they do.")] = 5.0,
    json_file: JsonFile = None,
) -> None:
    """What acquire, renew and release cost, beside a script that does nothing and one that writes a single number.

    On a redis-server of its own, configured as the box's: every write is on disk before it is answered.
    """
    with count_bar("rounds", rounds) as on_round:
        report = asyncio.run(registry_bench.measure(rounds, clients, seconds, on_round))
    report.finish(json_file)


@app.command()
def health(
    holds: Annotated[int, typer.Option(min=1, help="How often the worker's model holds the GIL.")] = 10,
    hold_s: Annotated[float, typer.Option("--seconds", min=0.2, max=10, help="For about how long each time.")] = 2.0,
    json_file: JsonFile = None,
) -> None:
    """How soon a worker's health answers while its model holds Python's global lock.

    The worker's own arrangement, a child process, beside the usual one, a thread: both answer for the same worker.
    """
    with count_bar("holds", holds) as on_hold:
        report = asyncio.run(health_bench.measure(holds, hold_s, on_hold))
    report.finish(json_file)


@app.command()
def llm(
    rounds: Annotated[int, typer.Option(min=1, help="How often each figure is taken.")] = 20,
    model: Model = "",
    json_file: JsonFile = None,
) -> None:
    """First tokens of chat with and without the prompt cache, tokens a second, and how soon work stops.

    A conversation's second turn beside the same turn with an empty cache; answers alone, two at once, and beside
    speculative work that makes way or does not; and from a client's close to the end of its work.
    """
    with count_bar("rounds", rounds) as on_round:
        report = asyncio.run(llm_bench.measure(rounds, model or settings.load().llm_model, on_round))
    report.finish(json_file)


@app.command()
def tts(
    runs: Annotated[int, typer.Option(min=1, help="How often each text is said, in pieces and whole.")] = 20,
    answers: Annotated[int, typer.Option(min=1, max=len(ANSWERS), help="On how many answers seams are measured.")] = 30,
    rounds: Annotated[int, typer.Option(min=tts_bench.AT_ONCE, help="Of stress, half of them cancelled.")] = 200,
    set_golden: Annotated[bool, typer.Option("--set-golden", help="Keep this run's audio to compare with.")] = False,
    golden_dir: Annotated[
        Path | None, typer.Option("--golden", help="Where that is kept; var/bench/tts-golden when not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="For report.html and summary.json; var/bench/tts.")] = None,
    engine: Annotated[
        Literal["own", "qwen3"], typer.Option(help="qwen3: what its networks cost on this machine, and nothing else.")
    ] = "own",
    size: Annotated[Literal["0.6b", "1.7b"], typer.Option(help="Of qwen3, with weights of chance.")] = "0.6b",
    quantization: Annotated[
        Literal["none", "int8", "fp8"], typer.Option(help="Of qwen3's talker, and how far it strays by that.")
    ] = "none",
    json_file: JsonFile = None,
) -> None:
    """The speech worker's regression suite: the same audio again, in time, without seams, errors and growth.

    Five texts in two modes, written at once and word by word, against golden audio that an earlier run has kept;
    answers in pieces against the same said whole, also as the box's own ear hears them; and a stress run.
    """
    if engine == "qwen3":
        raise typer.Exit(qwen3_bench.run(size, quantization, json_file))
    kept_in = settings.load().var_dir / "bench"
    with count_bar("steps", tts_bench.steps(runs, answers, rounds)) as on_step:
        taken = asyncio.run(tts_bench.take(runs, answers, rounds, on_step))
    if set_golden:
        golden.save(golden_dir or kept_in / "tts-golden", taken.audio, taken.engine)
    report = tts_bench.report(taken, golden.load(golden_dir or kept_in / "tts-golden", taken.engine))
    folder = out or kept_in / "tts"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", report.as_data())
    (folder / "report.html").write_text(page(report.as_data(), taken), encoding="utf-8")
    console.print(f"{folder}/report.html")
    report.finish(json_file)


@app.command()
def stt(
    rounds: Annotated[int, typer.Option(min=1, help="How often each figure is taken.")] = 20,
    speech: Speech = stt_bench.CLIPS,
    json_file: JsonFile = None,
) -> None:
    """Time of a transcription by the length of its audio, beside partials and another one, and its word error rate.

    Of the embedded engine, on recorded speech of people; and from a client's close to the end of its work.
    """
    with count_bar("rounds", rounds) as on_round:
        report = asyncio.run(stt_bench.measure(rounds, speech, on_round))
    report.finish(json_file)


@app.command()
def endpointing(json_file: JsonFile = None) -> None:
    """How much silence ends a turn: fixed waits beside what the words and the voice say, on recorded speech.

    Whom each cuts off in the middle of a sentence, and how long it waits when a turn is over. The recordings (30 to
    170 s each) come out of packages' test data, 130 MB the first time, and stay in the user's cache.
    """
    box = settings.load()
    spoken = pauses.recordings(box.cache_dir)
    with count_bar("recordings", len(spoken)) as on_recording:
        report = endpointing_bench.measure(box, spoken, on_recording)
    report.finish(json_file)


@app.command()
def priorities(
    rounds: Annotated[int, typer.Option(min=1, help="How often each figure is taken.")] = 20,
    speech: Speech = stt_bench.CLIPS,
    model: Model = "",
    json_file: JsonFile = None,
) -> None:
    """A caller's turn, from its commit to its first audio, alone and beside another call, with and without priorities.

    Without: the chat engine's threads stand beside those of speech on the cores, not behind them (CALLBOX_LLM_NICENESS
    is 0), and what is read ahead of another caller's words is not speculative.
    """
    with count_bar("rounds", rounds) as on_round:
        measuring = priorities_bench.measure(rounds, model or settings.load().llm_model, speech, on_round)
        report = asyncio.run(measuring)
    report.finish(json_file)


@app.command()
def turns(
    turns: Annotated[int, typer.Option(min=1, help="With each setting.")] = 30,
    speculation: Annotated[
        bool | None, typer.Option(help="Only with it, or only without; both in turn when not given.")
    ] = None,
    model: Model = "",
    json_file: JsonFile = None,
) -> None:
    """How soon a caller is answered: calls through LiveKit to a box of its own, as a robot hears them.

    Short questions in the box's own voice, call by call with speculation and without. The small model smollm2-135m
    shows the floor of everything but the model.
    """
    arms = (True, False) if speculation is None else (speculation,)
    with count_bar("turns", turns * len(arms)) as on_turn:
        given = model or settings.load().llm_model
        report = asyncio.run(turns_bench.measure(turns, arms=arms, llm_model=given, on_turn=on_turn))
    report.finish(json_file)


@app.command(name="barge-in")
def barge_in(
    turns: Annotated[int, typer.Option(min=1, help="Of each kind of sound.")] = 30,
    model: Model = "",
    json_file: JsonFile = None,
) -> None:
    """The caller makes a sound while the agent speaks: how soon it falls silent, and what wrongly silences it.

    Calls through LiveKit to a box of its own. Interruptions that are meant; and coughs, backchannels ("okay") and the
    agent's own voice leaking into the microphone, which are not: no answer may end by them.
    """
    with count_bar("turns", turns) as on_turn:
        given = model or settings.load().llm_model
        report = asyncio.run(barge_in_bench.measure(turns, llm_model=given, on_turn=on_turn))
    report.finish(json_file)


@app.command()
def soak(
    calls: Annotated[int, typer.Option(min=8, help="One after another.")] = 200,
    model: Model = "",
    json_file: JsonFile = None,
) -> None:
    """Many short calls one after another to a box of its own: does each leave every program as it was?

    Calls that hear the answer out, interrupt it, leave in its middle, or say nothing until the box hangs up. After
    each: memory, open files, threads and asyncio tasks of every program, and what Redis keeps. 200 take 35 minutes.
    """
    llm_model = model or settings.load().llm_model
    with count_bar("calls", calls) as on_call:
        taken = asyncio.run(soak_bench.take(calls, llm_model=llm_model, on_call=on_call))
    soak_report.report(taken, llm_model).finish(json_file)


@app.command()
def load(
    seconds: Annotated[float, typer.Option(min=5, help="For which all calls of a step talk.")] = 30.0,
    only: Annotated[
        load_bench.Box | None, typer.Option(help="One of the two boxes; both in turn when not given.")
    ] = None,
    model: Model = "",
    json_file: JsonFile = None,
) -> None:
    """How many calls at once are carried, in steps of 1, 2, 4, 8 and so on, and what gives way first.

    By the agent alone, with speech and chat workers that answer from a script and cost next to nothing; and by the
    whole box with its own. A step is carried when answers begin within 1.5 s (P95), no gap inside one is longer than
    60 ms and no call is lost. The robots that call share the cores with the box; what each used of them is shown.
    """
    llm_model = model or settings.load().llm_model
    with count_bar("steps", load_bench.MOST_STEPS) as on_step:
        climbs = asyncio.run(load_bench.climbs(seconds, only=only, llm_model=llm_model, on_step=on_step))
    load_report.report(climbs, seconds, llm_model).finish(json_file)
