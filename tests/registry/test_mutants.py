"""The mutation gate: every rule of the registry, broken on purpose, must fail the tests that are there to hold it."""

import inspect
import shutil
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import pytest
from redis.asyncio import Redis

from daemons.registry import client
from tests.registry.box import Box, Time
from tests.registry.mutants import MUTANTS, REGRESSIONS, Mutant, Test

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
