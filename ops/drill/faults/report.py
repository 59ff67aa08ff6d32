"""What a drill of faults amounts to."""

from ops.drill.faults.oracle import AGENT_LEAK_S, NOTICED_S, PARTITION_S, TOLERANCE_S, WORKER_LEAK_S, Rule
from ops.drill.faults.run import Outcome
from ops.figures import Bound, Report, Summary


def report(outcome: Outcome, rounds: int, worlds: int) -> Report:
    counts = outcome.counts
    bounds = {
        Rule.OVERLAP: "overlaps: work accepted or moved on under a lease that another had superseded",
        Rule.FORGED: "work accepted under a lease that no holder was given",
        Rule.LEAK: f"leaks: {AGENT_LEAK_S:g} s after an agent, {WORKER_LEAK_S:g} s after a worker, or slots not back",
        Rule.LOST: "calls lost that must survive",
        Rule.LATE: f"lost leases noticed after {NOTICED_S:g} s, partitions after {PARTITION_S:g} s",
        Rule.REGISTRY: "contradictions in the registry or its audit log",
    }
    samples = {
        **{f"available after {kind}": times for kind, times in sorted(outcome.available_s.items())},
        **{f"serves after {kind}": times for kind, times in sorted(outcome.serves_s.items())},
        "caller hangs up, holder stops": outcome.noticed_s,
        "last renewal, holder gives up": outcome.given_up_s,
    }
    return Report(
        "Real workers and holders under real faults",
        unit="s",
        facts={
            "seed": outcome.seed,
            "worlds": worlds,
            "rounds": outcome.rounds,
            "lasted_s": round(outcome.lasted_s, 1),
            "tolerance_s": TOLERANCE_S,
        },
        samples={name: Summary.of(times) for name, times in samples.items() if times},
        counts={
            **{f"rounds of {kind}": count for kind, count in sorted(outcome.by_kind.items())},
            "pieces of work accepted": counts.accepted,
            "steps of work": counts.steps,
            "calls held": counts.holds,
            "calls ended by a fault that may": counts.ended_by_faults,
            "late requests refused": counts.stale_refused,
            "late requests served (nobody had come meanwhile)": counts.stale_accepted,
            "forged fences refused": counts.forged_refused,
            "snapshots of the registry": counts.snapshots,
            "lines of the audit log": counts.events,
            "times the machine stood still": counts.stalls,
            "what looked wrong shortly after, and is not judged": counts.not_judged,
        },
        bounds=[
            Bound("rounds", outcome.rounds, rounds, kind="at least"),
            *(Bound(words, outcome.of(rule), 0) for rule, words in bounds.items()),
        ],
    )
