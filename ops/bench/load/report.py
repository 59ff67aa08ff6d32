"""What the steps of load amount to: how many calls are carried, by what CPU time, and what gives way first."""

from collections.abc import Mapping

from ops.bench.load.run import Box, Climb
from ops.bench.load.scripted import ROLES
from ops.bench.load.steps import Step
from ops.figures import Bound, Report, Row

_NAMES = {Box.AGENT_ALONE: "the agent alone", Box.WHOLE: "the whole box"}


def report(climbs: Mapping[Box, Climb], seconds: float, llm_model: str) -> Report:
    found = Report("How many calls at once", facts={"llm": llm_model, "seconds a step": seconds})
    for box, climb in climbs.items():
        what = _NAMES[box]
        found.counts[f"calls carried by {what}"] = climb.carried
        if (missed := climb.gave_way) is not None:
            found.facts[f"{what} gave way at {missed.calls}"] = "; ".join(missed.gave_way())
        found.tables[f"{what}; CPU in seconds for each call and minute"] = [
            _row(one) for one in sorted(climb.steps, key=lambda one: one.calls)
        ]
        found.bounds.append(Bound(f"calls carried by {what}", climb.carried, 1, kind="at least"))
    if (alone := climbs.get(Box.AGENT_ALONE)) is not None:
        busiest = max(alone.steps, key=lambda one: (not one.gave_way(), one.calls))
        found.counts["calls that would fill a core with the agent's event loop"] = 60 // busiest.spent.event_loop
    return found


def _row(one: Step) -> Row:
    """CPU times are seconds for each call and minute."""
    spent = one.spent.by_program
    workers = sum(spent[role] for role in ROLES)
    response = one.response_ms if one.answers else None
    return {
        "calls": one.calls,
        "answers": len(one.answers),
        "median ms": None if response is None else response.median,
        "P95 ms": None if response is None else response.p95_or_max,
        "gap ms": one.gap_ms if one.answers else None,
        "lost": len(one.lost),
        "carried": "no" if one.gave_way() else "yes",
        "cores %": 100 * one.spent.machine_share,
        "CPU: agent": spent["agent"],
        "its loop": one.spent.event_loop,
        "livekit": spent["livekit"],
        "stt llm tts": workers,
        "rest": sum(spent.values()) - spent["agent"] - spent["livekit"] - workers,
        "robots": one.spent.robots,
    }
