"""`callbox`: what a person, a cron job or CI runs against the box.

Who is woken at night waits for `callbox status`, not for the libraries of all commands: each imports what it runs when
it runs, which takes LiveKit's library a second.
"""

import asyncio
import atexit
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from daemons.errors import EXIT_DO_NOT_RESTART, EXIT_FAILED, EXIT_OK, CallboxError, ConfigurationError
from ops.figures import JsonFile, write_json


def run() -> NoReturn:
    """The program `callbox`."""
    code = EXIT_OK
    try:
        app()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else EXIT_FAILED
    if "livekit.rtc" in sys.modules:
        # Its native threads may call back into an interpreter that is being taken down, which aborts the process
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


class _Commands(TyperGroup):
    """Failures in words: a traceback is for who asks for one."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (CallboxError, OSError) as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            sys.stderr.write(f"callbox: {error}\n")
            is_setting = isinstance(error, ConfigurationError)
            raise typer.Exit(EXIT_DO_NOT_RESTART if is_setting else EXIT_FAILED) from error
        except KeyboardInterrupt:
            sys.stderr.write("callbox: interrupted\n")
            raise typer.Exit(130) from None


class _Package(TyperGroup):
    """The commands of ops/NAME/cli.py."""

    def list_commands(self, ctx: Any) -> list[str]:
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        if not self.commands:
            self.commands.update(typer.main.get_group(import_module(f"ops.{self.name}.cli").app).commands)


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
)
models_app = typer.Typer(no_args_is_help=True, help="The model files of etc/models.toml, of a hub, or your own.")
app.add_typer(models_app, name="models")
bench_app = typer.Typer(
    cls=_Package,
    no_args_is_help=True,
    help="""Measure what things cost, side by side in one run.

    Each command starts what it needs, on ports of its own, and ends it; a running box is left alone.
    """,
)
app.add_typer(bench_app, name="bench")
drill_app = typer.Typer(
    cls=_Package,
    no_args_is_help=True,
    help="""Make bad things happen on purpose, and check that nothing is lost.

    Each command starts what it needs, on ports of its own, and ends it; a running box is left alone.
    """,
)
app.add_typer(drill_app, name="drill")
lab_app = typer.Typer(cls=_Package, no_args_is_help=True, help="Prove with numbers that calls still sound right.")
app.add_typer(lab_app, name="lab")


@app.callback()
def main(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of a failure.")] = False) -> None:
    """A voice-call service in one box."""


@app.command()
def up() -> None:
    """Install what is missing, start the box or bring a running one to its settings, and wait until it is ready.

    CALLBOX_* settings of the environment are kept for later runs; an empty value forgets one.
    """
    from daemons import settings
    from ops import box, kept
    from ops.progress import console

    given = settings.given()
    for sentence in kept.unknown(given):
        console.print(f"[yellow]{sentence}[/yellow]")
    var_dir = settings.this_var_dir()
    kept.make_secrets(var_dir)
    box.up(kept.keep(var_dir, given))


@app.command()
def install(
    more_models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Beside what is needed.")
    ] = None,
) -> None:
    """Fetch and build what is missing, and start nothing (for an image, or for tests)."""
    from daemons.settings import load
    from ops import box

    box.install(load(), tuple(more_models or ()))


@app.command()
def down() -> None:
    """Stop every program in order: no new calls, then the calls, then what carries them."""
    from daemons.settings import load
    from ops import box

    box.down(load())


@app.command()
def restart(
    names: Annotated[list[str] | None, typer.Argument(metavar="[PROGRAM]...", help="All when none is named.")] = None,
) -> None:
    """Restart programs and wait until they are ready."""
    from daemons.settings import load
    from ops import box

    box.restart(load(), names or [])


@app.command()
def status(json_file: JsonFile = None) -> None:
    """Show what runs, who holds it and who waits; exit 1 unless everything is ready."""
    from daemons.settings import load
    from ops import status

    read = status.read(load())
    if json_file is None:
        status.show(read)
    else:
        write_json(json_file, read.as_data())
    if not read.ok:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def doctor(
    json_file: JsonFile = None,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the models through for their checksums.")] = False,
) -> None:
    """Find out what is wrong and say how to mend it; exit 1 when something is."""
    from daemons.settings import load
    from ops import doctor

    findings = doctor.examine(load(), checksums=not quick)
    if json_file is None:
        doctor.show(findings)
    else:
        write_json(json_file, [finding._asdict() for finding in findings])
    if any(finding.verdict == "wrong" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def call(
    say: Annotated[
        list[str] | None, typer.Option("--say", metavar="TEXT", help="Say this; may be given often.")
    ] = None,
    wav: Annotated[list[Path] | None, typer.Option("--wav", metavar="FILE", help="Say this 16-bit WAV file.")] = None,
    turns: Annotated[int | None, typer.Option("--turns", min=1, help="Go on for so many turns, over and over.")] = None,
    record: Annotated[Path | None, typer.Option("--record", metavar="OUT.wav", help="Write what was heard.")] = None,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            help="Call the box at this address, not this machine's. Its certificate, when self-signed, is "
            "var/tls/cert.pem there: copy it and name it here in SSL_CERT_FILE.",
        ),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Call the box as a person without a browser would; show what was said and how long each step took."""
    from daemons.audio import read_wav, wav_bytes
    from daemons.settings import load
    from ops import caller
    from ops.progress import console

    settings = load()
    wavs = [read_wav(path) for path in wav or []]
    report, heard = asyncio.run(
        caller.call(settings, door_url=url or settings.door_url, say=say or [], wavs=wavs, turns=turns, console=console)
    )
    if record is not None:
        record.write_bytes(wav_bytes(heard))
    if json_file is not None:
        write_json(json_file, report.model_dump())


@app.command()
def events(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens; Ctrl-C ends it.")] = False,
    call: Annotated[
        str | None, typer.Option("--call", metavar="ID", help="Of this call; its beginning will do.")
    ] = None,
    worker: Annotated[
        str | None, typer.Option("--worker", metavar="W", help="Of this worker or program: host:port, or as in tts.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="AGO", help="Not what is older: 90s, 10m, 2h, 1d.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Say what happened to calls, workers and programs, in words: all that is kept, oldest first.

    With --follow, what happens from now on; what happened before too when --since says how far back.
    """
    from daemons.settings import load
    from ops import events

    after = events.since(since, time.time() * 1000) if since else None
    redis_url = load().redis
    try:
        asyncio.run(events.tell(redis_url, after, call=call, worker=worker, follows=follow, as_json=as_json))
    except KeyboardInterrupt:
        if not follow:
            raise
    except BrokenPipeError:  # as of `| head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@models_app.command("list")
def list_models() -> None:
    """Show the models, which of them the settings need, and which are there."""
    from rich.table import Table

    from daemons.settings import load
    from ops import models
    from ops.progress import console

    settings = load()
    needed = models.needed(settings)
    table = Table(box=None, pad_edge=False)
    for title in ("model", "role", "engines", "MB", "licence", "needed", "there"):
        table.add_column(title, justify="right" if title == "MB" else "left")
    known = models.known(settings)
    for name, model in known.items():
        there = "no" if models.missing(settings, name, model) else "yes"
        megabytes = f"{model.size_bytes / 1e6:.0f}"
        needs = "yes" if name in needed else ""
        table.add_row(name, model.role, ", ".join(model.engines), megabytes, model.licence, needs, there)
    console.print(table)
    for name in needed:
        if name not in known:
            console.print(f"needed, and not fetched yet: {name}", markup=False)
    console.print(f"in {settings.models_dir}")


@models_app.command("pull")
def pull_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Names, or hf:OWNER/REPOSITORY[/FILE]; without: what is needed."),
    ] = None,
) -> None:
    """Fetch models and check them; what is there stays as it is."""
    from daemons.models import model_folder
    from daemons.settings import load
    from ops import models
    from ops.progress import console

    settings = load()
    chosen = names or models.needed(settings)
    models.pull(settings, chosen, models.catalogue())
    known = models.known(settings)
    for name in chosen:
        console.print(f"{name}: {known[name].licence}, in {model_folder(settings, name)}", markup=False)


@models_app.command("use")
def use_model(
    what: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name of `list`, hf:OWNER/REPOSITORY[/FILE], or a file or folder.")
    ],
) -> None:
    """Use this model for what it is made for: fetch it, check that an engine runs it, and keep the setting.

    A running box goes on as it is until its programs are restarted.
    """
    from daemons.settings import PREFIX, load
    from ops import choice
    from ops.progress import console
    from ops.supervise import Supervisord

    settings = load()
    chosen = choice.choose(settings, what)
    if not chosen.changes:
        console.print(f"{chosen.name} is what {chosen.role} uses already", markup=False)
        return
    choice.keep(settings, chosen)
    for setting, (before, after) in chosen.changes.items():
        console.print(f"{setting}: {before} → {after}", markup=False)
    if not chosen.programs:
        console.print(f"No program runs it here: callers are heard by the chat model itself ({PREFIX}LLM_OMNI)")
    is_up = Supervisord(settings).pid() is not None
    console.print(f"Next: callbox {' '.join(('restart', *chosen.programs)) if is_up and chosen.programs else 'up'}")
    console.print(f"The way back: {chosen.way_back}", markup=False)
