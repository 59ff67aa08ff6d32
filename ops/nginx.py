"""nginx as supervisord runs it: `python -m ops.nginx NGINX -c CONF`.

A master that is killed with SIGKILL leaves its workers behind, and they keep the ports: the next master could not bind.
supervisord gives each program a process group of its own, so they can be told apart from anyone else's nginx.
"""

import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import psutil


def end_orphans(pid_file: Path) -> list[int]:
    """Kill the workers that a dead master, named by its pid file, has left; returns their process ids."""
    try:
        master = int(pid_file.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return []
    if psutil.pid_exists(master):
        return []
    ended = []
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(OSError):
            if process.info["name"] == "nginx" and os.getpgid(process.pid) == master:
                os.kill(process.pid, signal.SIGKILL)
                ended.append(process.pid)
    return ended


def main(command: list[str]) -> None:
    conf = Path(command[command.index("-c") + 1])
    if named := re.search(r'^pid "(.+)";', conf.read_text(encoding="utf-8"), re.MULTILINE):
        for pid in end_orphans(Path(named[1])):
            sys.stderr.write(f"ended {pid}, a worker that a killed master had left\n")
    os.execv(command[0], command)  # noqa: S606 - the program that supervisord was told to run


if __name__ == "__main__":
    main(sys.argv[1:])
