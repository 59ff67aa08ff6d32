"""`callbox drill`: faults on purpose, and proof that nothing is lost by them."""

import typer

app = typer.Typer(no_args_is_help=True, help="Make bad things happen on purpose, and check that nothing is lost.")


@app.callback()
def drill() -> None:
    """Each command starts what it needs, on ports of its own, and ends it; a running box is left alone."""
