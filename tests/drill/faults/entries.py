"""What children of the tests run: among them workers and holders that are broken on purpose."""

import os
import sys
from typing import NoReturn

from daemons import settings as settings_module
from daemons.admission import Admission, Claim
from daemons.errors import EXIT_DO_NOT_RESTART
from daemons.registry import AdoptStatus, Registry, holder
from ops.drill.faults import agent, worker


def tell(code: str, word: str) -> NoReturn:
    sys.stdout.write(f"{word}, with {settings_module.load().slots} slots\n")
    sys.stdout.flush()
    os._exit(int(code))


def worker_that_wants_no_restart(role: str, journal: str) -> NoReturn:
    os._exit(EXIT_DO_NOT_RESTART)


def worker_without_fences(role: str, journal: str) -> NoReturn:
    """It takes every request that names this boot."""

    async def check(self: Admission, claim: Claim) -> None:
        pass

    Admission._check = check  # type: ignore[method-assign]
    worker.run(role, journal)


def agent_that_adopts_nothing(journal: str) -> NoReturn:
    async def adopt(self: Registry, *args: object) -> AdoptStatus:
        return AdoptStatus.TAKEN

    Registry.adopt = adopt  # type: ignore[assignment, method-assign]
    agent.run(journal)


def agent_that_never_gives_up(journal: str) -> NoReturn:
    holder.GIVE_UP_S = 3600
    agent.CALL_S = (60, 90)
    agent.run(journal)
