"""`callbox bench`: what things cost, measured side by side in one run."""

import typer

app = typer.Typer(no_args_is_help=True, help="Measure what things cost, side by side in one run.")


@app.callback()
def bench() -> None:
    """Each command starts what it needs, on ports of its own, and ends it; a running box is left alone."""
