"""The mutation gate: every rule of the registry, broken on purpose, must fail the tests that are there to hold it."""

import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from daemons.monitor.server import Monitor
from daemons.registry import Holder, client
from tests import test_runtime
from tests.registry import test_holder, test_regressions
from tests.registry.box import Box, Time
from tests.registry.mutants import MUTANTS, REGRESSIONS, Mutant, Test
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

SOURCES = Path(str(resources.files("daemons.registry"))) / "lua"


def name_of(test: Test) -> str:
    """Its own, and what it is called with."""
    with_what = [str(getattr(value, "__name__", value)) for value in getattr(test, "keywords", {}).values()]
    return "-".join([getattr(test, "func", test).__name__, *with_what])


class Gate:
    """Runs tests as plain functions, against the scripts of a folder of its own."""

    def __init__(self, redis: Redis, redis_url: str, folder: Path) -> None:
        self._redis = redis
        self._url = redis_url
        self.scripts = folder / "lua"
        shutil.copytree(SOURCES, self.scripts)

    def apply(self, mutant: Mutant) -> None:
        path = self.scripts / f"{mutant.script}.lua"
        source = path.read_text(encoding="utf-8")
        assert source.count(mutant.old) == 1, f"{mutant.script}.lua has changed: correct the mutant {mutant.name!r}"
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")

    async def run(self, test: Test) -> None:
        await self._redis.flushall()
        given = {"box": Box(self._redis, Time()), "redis": self._redis, "redis_url": self._url}
        await test(**{name: given[name] for name in inspect.signature(test).parameters if name in given})


@pytest.fixture
def gate(redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    client._script.cache_clear()
    monkeypatch.setattr(client, "resources", SimpleNamespace(files=lambda _: tmp_path))
    yield Gate(redis, redis_url, tmp_path)
    client._script.cache_clear()


@pytest.mark.parametrize("test", {name_of(test): test for m in MUTANTS for test in m.caught_by}.values(), ids=name_of)
async def test_the_scripts_as_they_are_pass(gate: Gate, test: Test) -> None:
    """Else a mutant that fails a test would prove nothing."""
    await gate.run(test)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
async def test_no_mutant_survives(gate: Gate, mutant: Mutant) -> None:
    gate.apply(mutant)
    for test in mutant.caught_by:
        with pytest.raises((AssertionError, TimeoutError)):  # not Unavailable: a script that cannot run proves nothing
            await gate.run(test)


@pytest.mark.parametrize("mutant", REGRESSIONS, ids=lambda mutant: mutant.name)
async def test_a_fault_of_the_demo_fails_its_own_regression_test_alone(gate: Gate, mutant: Mutant) -> None:
    gate.apply(mutant)
    for other in {test for m in REGRESSIONS for test in m.caught_by} - set(mutant.caught_by):
        await gate.run(other)


# Faults that no script can have


def break_method(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, old: str, new: str) -> None:
    source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
    assert source.count(old) == 1, f"{owner.__name__}.{name} has changed: correct this mutant"
    broken: dict[str, Any] = {}
    exec(source.replace(old, new), vars(sys.modules[owner.__module__]), broken)  # noqa: S102
    monkeypatch.setattr(owner, name, broken[name])


async def test_health_in_a_thread_of_the_worker_fails_its_regression_test(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_regressions, "WORKER_MODULE", "tests.registry.health_in_a_thread")
    with pytest.raises(AssertionError, match="held the health endpoint up"):
        await test_regressions.test_a_model_call_does_not_block_the_health_endpoint(redis_url, tmp_path)


async def test_a_monitor_that_an_error_ends_fails_its_regression_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_method(monkeypatch, Monitor, "_each", "self._failed.labels(name).inc()", "return")
    with pytest.raises(AssertionError, match="did not happen"):
        await test_regressions.test_an_error_does_not_end_the_monitor(tmp_path)


async def test_a_worker_that_takes_calls_before_their_holders_adopt_is_noticed(
    redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    def make_impatient() -> WorkerProcess:
        return WorkerProcess("tts", redis_url, tmp_path, module="tests.registry.calls_at_once")

    registry = client.connect(redis_url)
    with pytest.raises(AssertionError):
        await test_runtime.test_a_registry_that_lost_its_data_is_told_again_once(make_impatient, registry, redis)
    await registry.close()


OFFERS = "await self._registry.adopt(self.call, self.fence, self._bundle) is AdoptStatus.TAKEN"


@pytest.mark.parametrize(
    ("old", "new", "caught_by"),
    [
        pytest.param(
            OFFERS,
            "True",
            test_holder.test_a_registry_that_lost_its_data_gets_it_back,
            id="a holder that gives nothing back",
        ),
        pytest.param(
            OFFERS,
            OFFERS.replace("AdoptStatus.TAKEN", "None"),
            test_holder.test_a_slot_that_was_given_away_is_not_fought_over,
            id="a holder that does not heed a refusal",
        ),
        pytest.param(
            "self.moving = frozenset(answer.moving)",
            "pass",
            test_holder.test_a_drained_member_is_moving_and_can_be_swapped,
            id="a holder that does not see who drains",
        ),
    ],
)
async def test_no_broken_holder_survives(
    redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch, old: str, new: str, caught_by: Test
) -> None:
    break_method(monkeypatch, Holder, "_renew", old, new)
    registry = client.connect(redis_url)
    await test_holder.worker_up(registry, "t:1")
    given = {"registry": registry, "redis": redis}
    with pytest.raises((AssertionError, TimeoutError)):
        await caught_by(**{name: given[name] for name in inspect.signature(caught_by).parameters})
    await registry.close()
