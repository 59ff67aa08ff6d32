"""`callbox drill registry`: it goes everywhere, it can be repeated, and it finds what is broken."""

import json
import shutil
from functools import cache
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from daemons.registry import client
from ops.drill.cli import app
from tests.registry.mutants import MUTANTS, REGRESSIONS, Mutant

pytestmark = pytest.mark.integration

SCRIPTS = Path(str(resources.files("daemons.registry"))) / "lua"
# Rules that take several steps, and luck, to see broken; all mutants that a client can notice are found within 20,000
DEEP = {
    "a lease lives a script longer than it was given",
    "a swap that is asked for again takes another worker",
    "a swapped-in member inherits the call's fence",
    "a member that restarted is adopted",
    "a worker that is adopted registers as if nothing were missing",
    "an ended grant may be adopted back",
    "who queues for a role that nobody serves waits for ever",
    "a reservation that loses its worker goes to the end of the queue",
    "probes from before a silence count after it",
    "a retired boot returns",
}


def drill(ops: int, *options: str) -> tuple[Result, dict[str, Any]]:
    result = CliRunner().invoke(app, ["registry", "--ops", str(ops), "--json", "-", *options])
    assert result.stdout, f"{result.exception!r}\n{result.stderr}"
    return result, json.loads(result.stdout)


def break_script(mutant: Mutant, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(SCRIPTS, folder / "lua")
    path = folder / "lua" / f"{mutant.script}.lua"
    path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
    monkeypatch.setattr(client, "resources", SimpleNamespace(files=lambda _: folder))
    monkeypatch.setattr(client, "_script", cache(client._script.__wrapped__))  # nothing broken stays behind


def test_it_gets_every_answer_of_every_method() -> None:
    result, report = drill(20_000, "--seed", "1")
    assert result.exit_code == 0
    assert report["counts"]["operations"] == 20_000
    never = {name for name, count in report["counts"].items() if ": " in name and not count}
    assert never == set()
    assert report["counts"]["answers that nobody got"] == 0


def test_the_same_seed_does_the_same() -> None:
    first, again, other = (drill(1000, "--seed", seed)[1]["counts"] for seed in ("5", "5", "6"))
    for counts in (first, again, other):
        del counts["operations/s"]
    assert first == again
    assert first != other


def test_many_clients() -> None:
    result, report = drill(2000, "--seed", "1", "--clients", "16")
    assert result.exit_code == 0
    assert report["facts"]["clients"] == 16
    assert report["counts"]["operations"] == 2000


@pytest.mark.parametrize("mutant", [*REGRESSIONS, *(m for m in MUTANTS if m.name in DEEP)], ids=lambda m: m.name)
def test_it_finds_a_broken_rule(mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_script(mutant, tmp_path, monkeypatch)
    result, report = drill(20_000, "--seed", "1")
    assert result.exit_code == 1
    assert not report["ok"]
    assert "callbox drill registry --ops 20000 --seed 1 --clients 1" in result.stderr


@pytest.mark.parametrize("clients", ["1", "16"])
def test_a_script_that_fails_is_told_with_what_came_before(
    clients: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renews_nothing = Mutant("a renewal fails", "renew", "local moving = {}", "local moving = nothing.at_all", ())
    break_script(renews_nothing, tmp_path, monkeypatch)
    result, _ = drill(5000, "--seed", "1", "--clients", clients)
    assert result.exit_code == 1
    assert "renew(" in result.stderr
    assert "nothing" in result.stderr
