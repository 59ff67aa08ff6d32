"""What a drill of disconnects amounts to."""

from collections import Counter

from daemons.wire import Role
from ops.drill.disconnects.aftermath import GROWTH_LIMIT_KB, ROUNDS_THAT_TELL, growth_kb
from ops.drill.disconnects.run import PLACES, Outcome
from ops.drill.disconnects.wrong import Rule
from ops.figures import Bound, Report, Summary

STOP_LIMITS_MS: dict[Role, float] = {"tts": 1000.0, "llm": 2000.0, "stt": 1000.0}


def report(outcome: Outcome, rounds: int) -> Report:
    lefts = [left for gone in outcome.gone.values() for left in gone.lefts]
    stops = {f"{name}: client gone → work stopped": times for name, times in outcome.stops_ms.items()}
    samples = {name: Summary.of(times) for name, times in stops.items() if times}
    counts: dict[str, int | float] = {
        f"crowds of {PLACES + 1} at {PLACES} places": outcome.crowds,
        "clients refused in the rounds": sum(left.refused for left in lefts),
        "clients who had their whole answer": sum(left.has_all for left in lefts),
        "clients who surely left in the middle of an answer": sum(left.was_cut_off for left in lefts),
        "clients of a call": sum(left.plan.of_call for left in lefts),
    }
    counts |= {f"left {moment}": n for moment, n in sorted(Counter(str(left.plan.moment) for left in lefts).items())}
    counts |= {f"left by {manner}": n for manner, n in sorted(Counter(str(left.plan.manner) for left in lefts).items())}
    for role, seen in outcome.aftermath.items():
        before, after = seen.before, seen.after
        counts |= {
            f"{role}: as before, s after the last client": round(seen.settled_s, 2),
            **{f"{role}: more {name}": getattr(after, name) - getattr(before, name) for name in MORE},
            f"{role}: memory before, MB": round(before.memory_bytes / 1e6),
            f"{role}: memory after, MB": round(after.memory_bytes / 1e6),
        }
    counts |= {f"{role}: cancel → engine stopped, mean ms": ms for role, ms in outcome.engine_stops_ms.items()}
    return Report(
        "Crowds and disconnects at the speech and chat workers",
        facts={"seed": outcome.seed, "rounds": len(lefts), "lasted_s": round(outcome.rounds_lasted_s, 1)},
        samples=samples,
        counts=counts,
        bounds=[
            Bound("rounds", len(lefts), rounds, kind="at least"),
            *(Bound(rule, outcome.of(rule), 0) for rule in Rule),
            *_growth(outcome),
            *(
                Bound(f"{name}, P95", samples[name].p95_or_max if name in samples else float("nan"), limit_ms, "ms")
                for name in stops
                for role, limit_ms in STOP_LIMITS_MS.items()
                if name.startswith(role)
            ),
        ],
    )


MORE = ("connections", "tasks", "threads", "files")


def _growth(outcome: Outcome) -> list[Bound]:
    """None after few rounds: an allocator's first steps look like growth."""
    return [
        Bound(f"{role}: growth of memory a round, second half", growth_kb(gone.memory_bytes), GROWTH_LIMIT_KB, "KB")
        for role, gone in outcome.gone.items()
        if len(gone.lefts) >= ROUNDS_THAT_TELL
    ]
