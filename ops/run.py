"""Running other people's programs: what they say goes to a log, and a failure tells where to look."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from daemons.errors import CallboxError
from ops.progress import spinner

TAIL_LINES = 12


class StepFailed(CallboxError):
    """A step of the installation ended badly; the text says which, why, and what to do."""


def run(
    what: str, command: Sequence[str | Path], *, log: Path, cwd: Path, env: Mapping[str, str] | None = None
) -> None:
    """Run to the end, showing the latest line. Raises StepFailed with the last lines and the log's place."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command]
    tail: list[str] = []
    try:
        with (
            log.open("w", encoding="utf-8") as file,
            spinner(what) as say,
            subprocess.Popen(
                words, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            ) as process,
        ):
            assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
            for line in process.stdout:
                file.write(line)
                tail = [*tail[1 - TAIL_LINES :], line.rstrip()]
                say(line.strip())
    except OSError as error:
        raise StepFailed(f"{what}: {words[0]}: {error.strerror}") from error
    if process.returncode:
        said = "\n  ".join(tail)
        raise StepFailed(f"{what} failed ({words[0]} ended with {process.returncode}):\n  {said}\nall of it: {log}")
