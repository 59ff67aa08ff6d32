"""Processes forked from one that has imported everything: started in milliseconds, ended whatever becomes of us.

This module is both sides: `Forks` in the drill, and the process that forks (`python -m ops.drill.faults.forks`). Its
children die with it (PR_SET_PDEATHSIG), and it with the drill, also when that is killed.
"""

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from asyncio.subprocess import DEVNULL
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from daemons.settings import ROOT, environment_without_settings

EXIT_CRASHED = 70  # of a child that did not even begin
CLOSE_S = 5.0
_PR_SET_PDEATHSIG = 1


class Child:
    """A process of ours."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def has_ended(self) -> bool:
        return self._code.done()

    async def wait(self) -> int:
        """Its exit code, negative for a signal."""
        return await asyncio.shield(self._code)

    def signal(self, signum: signal.Signals) -> None:
        """Nothing happens to one that has ended."""
        if not self.has_ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def note_end(self, code: int) -> None:
        self._code.set_result(code)


class Forks:
    """Starts children while inside the context, and kills those that are left at its end."""

    def __init__(self, *preload: str) -> None:
        self._preload = preload
        self._children: dict[int, Child] = {}
        self._started: asyncio.Queue[Child] = asyncio.Queue()
        self._asking = asyncio.Lock()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def start(
        self,
        *,
        log: Path,
        entry: str = "",
        args: Sequence[str] = (),
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Run `entry` ("package.module:function", called with `args`) or a `command`; its output is added to `log`."""
        order = {
            "entry": entry,
            "args": list(args),
            "command": list(command),
            "environment": dict(environment or {}),
            "log": str(log),
        }
        async with self._asking:
            self._orders.write(json.dumps(order).encode() + b"\n")
            await self._orders.drain()
            return await self._started.get()

    async def __aenter__(self) -> "Forks":
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", __name__, str(os.getpid()), str(theirs.fileno()), *self._preload),
                pass_fds=(theirs.fileno(),),
                stdin=DEVNULL,
                cwd=ROOT,
                env=environment_without_settings(),
                start_new_session=True,  # Ctrl-C is for the drill alone, which then ends the rest in order
            )
        reports, self._orders = await asyncio.open_connection(sock=ours)
        self._reading = asyncio.create_task(self._read(reports))
        return self

    async def __aexit__(self, *_: object) -> None:
        children = list(self._children.values())
        for child in children:
            child.signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await asyncio.gather(*(child.wait() for child in children))
        self._reading.cancel()
        self._orders.close()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _read(self, reports: asyncio.StreamReader) -> None:
        while line := await reports.readline():
            said = json.loads(line)
            if "started" in said:
                child = self._children[said["started"]] = Child(said["started"])
                self._started.put_nowait(child)
            else:
                self._children.pop(said["ended"]).note_end(said["code"])


def die_with_parent(parent_pid: int) -> None:
    """Be killed when the parent ends, also when it ended just before this was said."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(EXIT_CRASHED)


class _Forking:
    """The process that forks. It has one thread and no event loop, so that a child may have its own."""

    def __init__(self, drill: socket.socket) -> None:
        self._drill = drill
        self._woken, waker = socket.socketpair()
        for end in (self._woken, waker):
            end.setblocking(False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno())
        self._unread = b""

    def serve(self) -> None:
        """Until the drill hangs up."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._drill, selectors.EVENT_READ, self._obey)
            selector.register(self._woken, selectors.EVENT_READ, self._reap)
            while all(key.data() for key, _ in selector.select()):
                pass

    def _obey(self) -> bool:
        try:
            data = self._drill.recv(65536)
        except ConnectionError:
            return False
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._fork(json.loads(line))
        return bool(data)

    def _reap(self) -> bool:
        self._woken.recv(4096)
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._say({"ended": ended[0], "code": os.waitstatus_to_exitcode(ended[1])})
        return True

    def _fork(self, order: dict[str, Any]) -> None:
        parent_pid = os.getpid()
        if pid := os.fork():
            self._say({"started": pid})
            return
        try:
            die_with_parent(parent_pid)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for inherited in (self._woken, self._waker, self._drill):
                inherited.close()
            _run(order)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(EXIT_CRASHED)

    def _say(self, said: dict[str, int]) -> None:
        self._drill.sendall(json.dumps(said).encode() + b"\n")


def _run(order: dict[str, Any]) -> NoReturn:
    log = os.open(order["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for fd, place in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(fd, place)
    os.environ.update(order["environment"])
    if order["command"]:
        os.execvp(order["command"][0], order["command"])  # noqa: S606
    module, _, name = order["entry"].partition(":")
    entry: Callable[..., NoReturn] = getattr(importlib.import_module(module), name)
    entry(*order["args"])


def main(parent_pid: int, drill_fd: int, *preload: str) -> None:
    die_with_parent(parent_pid)
    for module in preload:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # what is imported is shared with the children for as long as nobody writes to it
    _Forking(socket.socket(fileno=drill_fd)).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
