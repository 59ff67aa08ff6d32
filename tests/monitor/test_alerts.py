"""The alert rules under promtool: each one fires and clears, and none can be spoiled unnoticed."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from daemons.settings import ROOT
from ops.cli import app

PROMETHEUS = ROOT / "etc/prometheus"
RULES, TESTS = PROMETHEUS / "callbox.rules.yml", PROMETHEUS / "callbox.rules.test.yml"

Rule = dict[str, Any]


def rules_in(groups: dict[str, Any]) -> list[Rule]:
    return [rule for group in groups["groups"] for rule in group["rules"]]


GROUPS: dict[str, Any] = yaml.safe_load(RULES.read_text())
TESTED: dict[str, Any] = yaml.safe_load(TESTS.read_text())
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
ALERTS = [rule["alert"] for rule in rules_in(GROUPS)]


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ("promtool", *map(str, arguments))
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def seconds(duration: str) -> int:
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(count) * units[unit] for count, unit in re.findall(r"(\d+)([hms])", duration))


@pytest.mark.integration
def test_the_rules_do_what_their_tests_say() -> None:
    said = promtool("test", "rules", TESTS)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_each_rule_has_a_test_in_which_it_fires_and_then_clears(alert: str) -> None:
    for group in TESTED["tests"]:
        seen: list[bool] = []
        for moment in sorted(group["promql_expr_test"], key=lambda moment: seconds(moment["eval_time"])):
            assert moment["expr"] == 'ALERTS{alertstate="firing"}', "a test names all that fires"
            seen.append(any(f'alertname="{alert}"' in sample["labels"] for sample in moment["exp_samples"]))
        if True in seen and not seen[0] and not seen[-1]:
            return
    raise AssertionError(f"no test in which {alert} is silent, fires, and is silent again")


def spoilt(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """(what was done, the rule after it) for each number, each label value and each wait of the rule."""
    expr = rule["expr"]
    for number in re.finditer(r"(?<![\w\".\[])\d+(?:\.\d+)?(?![\w.\]])", expr):
        value = float(number[0])
        for other in (value * 10, value / 10) if value else (1.0,):
            yield f"{number[0]} at {number.start()} → {other:g}", rule | {"expr": replaced(expr, number, f"{other:g}")}
    for text in re.finditer(r'(?<=[=~]")(?!callbox_)[^"]+', expr):
        names = text[0].split("|")
        for name in names:
            others = "|".join(other for other in names if other != name) or "nobody"
            yield f"{text[0]} at {text.start()} → {others}", rule | {"expr": replaced(expr, text, others)}
    yield "for → never", rule | {"for": "2h"}
    if "for" in rule:
        yield "for → at once", {name: value for name, value in rule.items() if name != "for"}


def replaced(text: str, match: re.Match[str], by: str) -> str:
    return text[: match.start()] + by + text[match.end() :]


@pytest.mark.integration
@pytest.mark.parametrize("alert", ALERTS)
def test_no_rule_can_be_spoilt_unnoticed(alert: str, tmp_path: Path) -> None:
    rule = next(rule for rule in rules_in(GROUPS) if rule["alert"] == alert)
    mutants = dict([("as it is", rule), *spoilt(rule)])
    names = {f"{alert}{number}": what for number, what in enumerate(mutants)}
    side_by_side = [mutant | {"alert": name} for name, mutant in zip(names, mutants.values(), strict=True)]
    (tmp_path / RULES.name).write_text(yaml.safe_dump({"groups": [{"name": "mutants", "rules": side_by_side}]}))
    tests = [under_names(group, alert, names) for group in TESTED["tests"] if shares_metric(group, rule)]
    (tmp_path / TESTS.name).write_text(yaml.safe_dump(TESTED | {"tests": tests}))
    run = promtool("test", "rules", tmp_path / TESTS.name)
    said = run.stdout + run.stderr
    noticed = set(re.findall(r'expr: .*alertname=\\"(\w+)\\"', said))
    assert {what for name, what in names.items() if name not in noticed} == {"as it is"}, said


def shares_metric(group: Rule, rule: Rule) -> bool:
    given = {re.match(r"\w+", series["series"])[0] for series in group["input_series"]}  # type: ignore[index]
    return any(name in rule["expr"] for name in given)


def under_names(group: Rule, alert: str, names: Iterable[str]) -> Rule:
    """The test, asked for each of these names what it says of `alert`."""
    moments = [
        {
            "expr": f'ALERTS{{alertstate="firing", alertname="{name}"}}',
            "eval_time": moment["eval_time"],
            "exp_samples": [
                sample | {"labels": sample["labels"].replace(f'"{alert}"', f'"{name}"')}
                for sample in moment["exp_samples"]
                if f'"{alert}"' in sample["labels"]
            ],
        }
        for moment in group["promql_expr_test"]
        for name in names
    ]
    return group | {"promql_expr_test": moments}


@pytest.mark.parametrize("alert", ALERTS)
def test_each_rule_says_what_happened_what_callers_notice_and_what_to_do(alert: str) -> None:
    rule = next(rule for rule in rules_in(GROUPS) if rule["alert"] == alert)
    assert rule["labels"]["severity"] in ("warning", "critical")
    words = rule["annotations"]
    assert set(words) == {"summary", "impact", "action"}
    assert all(len(text) > 20 for text in words.values())
    named = re.findall(r"`callbox ([^`]+)`", words["action"])
    assert named, "the action names a command"
    for line in named:
        name, *rest = line.split()
        command = COMMANDS[name]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, line
        assert not hasattr(command, "commands"), f"{line}: a group does nothing by itself"
    assert set(re.findall(r"CALLBOX_[A-Z_]+", words["action"])) <= {
        f"CALLBOX_{name}" for name in ("SLOTS", "QUEUE_MAX", "DIRECT_SLOTS")
    }


def test_each_label_in_the_words_is_one_that_the_alert_has() -> None:
    fired: dict[str, str] = {}
    for group in TESTED["tests"]:
        for moment in group["promql_expr_test"]:
            for sample in moment["exp_samples"]:
                fired[re.findall(r'alertname="(\w+)"', sample["labels"])[0]] = sample["labels"]
    for rule in rules_in(GROUPS):
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert f'{label}="' in fired[rule["alert"]], f"{rule['alert']} has no label {label}"
