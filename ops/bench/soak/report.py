"""What a soak amounts to: what came of its calls, and what grew from call to call."""

from collections.abc import Mapping, Sequence

from ops.bench.soak.calls import Kind
from ops.bench.soak.growth import QUARTER, Growth, warm_up
from ops.bench.soak.looks import Look
from ops.bench.soak.run import Taken
from ops.figures import Bound, Report, Row, Summary

# Of 60 calls the box's own daemons grew by 2 KB and 17 blocks at most; 10 KB a call must be found.
USED_LIMIT_KB = 5.0
BLOCKS_LIMIT = 40.0
CALLS_THAT_TELL = 40  # after the warm-up
# Arenas come and go by 10 MB in the agent, and Go's heap by 4; what LiveKit has for one call is a megabyte.
HELD_LIMIT_KB = 64.0
CALLS_THAT_TELL_OF_HELD = 100
LIVEKIT = "livekit"
MORE_THREADS = 6  # Go starts one when all wait for the kernel, and keeps it
MORE_CONNECTIONS = 6  # a daemon's pool keeps as many as it once needed at once


def report(taken: Taken, llm_model: str) -> Report:
    calls = len(taken.looks)
    found = Report("Calls one after another", facts={"calls": calls, "to warm up": warm_up(calls), "llm": llm_model})
    _tell_outcomes(found, taken)
    looks = taken.looks[warm_up(calls) :]
    counted = {what: _growths(series) for what, series in _counted(looks).items()}
    media = counted["threads"][LIVEKIT]
    found.bounds.append(Bound(f"more threads of {LIVEKIT}", media.last - media.first, MORE_THREADS))
    for what, growths in counted.items():
        if grew := [name for name, growth in growths.items() if not (growth.is_flat or growth is media)]:
            found.facts[f"{what} grew in"] = ", ".join(grew)
        found.bounds.append(Bound(f"programs whose {what} grew", len(grew), 0))
    found.tables["medians of the first and the last quarter of the calls after those"] = [
        _counted_row(name, counted) for name in _programs(looks)
    ]
    links, records, traces = (
        Growth.of([getattr(look, what) for look in looks]) for what in ("redis_connections", "redis_keys", "traces")
    )
    found.bounds += [
        Bound("more connections to Redis", links.last - links.first, MORE_CONNECTIONS),
        Bound("more keys in Redis", records.last - records.first, 0),
        Bound("files of traces, a call", traces.a_call.median, 1),
    ]
    for what, (series, limit, calls_that_tell) in _sized(looks).items():
        growths = _growths(series)
        found.tables[f"{what}, and how it grows with each call"] = [_sized_row(*one) for one in growths.items()]
        if len(looks) >= calls_that_tell:
            found.bounds += [
                Bound(f"growth of {what} a call, {name}", growth.a_call.high, limit) for name, growth in growths.items()
            ]
    return found


def _tell_outcomes(found: Report, taken: Taken) -> None:
    for kind in Kind:
        found.counts[f"calls: {kind}"] = sum(one.kind is kind for one in taken.outcomes)
    wrong = [f"call {number}: {one.wrong}" for number, one in enumerate(taken.outcomes, 1) if one.wrong]
    left = [f"after call {number}: {words}" for number, words in enumerate(taken.left, 1) if words]
    for number, words in enumerate([*wrong, *left], 1):
        found.facts[f"wrong {number}"] = words
    found.bounds.append(Bound("calls that went wrong", len(wrong), 0))
    found.bounds.append(Bound("calls of which something was still held", len(left), 0))
    quarter = max(1, len(taken.outcomes) // QUARTER)
    for which, part in (("first", taken.outcomes[:quarter]), ("last", taken.outcomes[-quarter:])):
        if heard := [one.response_ms for one in part if one.response_ms is not None]:
            found.samples[f"end of speech → first audio heard, {which} quarter"] = Summary.of(heard)


def _programs(looks: Sequence[Look]) -> list[str]:
    return sorted(looks[0].footprints)


def _counted(looks: Sequence[Look]) -> dict[str, dict[str, list[int]]]:
    """What is counted in whole numbers, by its name and the program's."""
    programs = _programs(looks)
    return {
        "files": {name: [look.footprints[name].files for look in looks] for name in programs},
        "threads": {name: [look.footprints[name].threads for look in looks] for name in programs},
        "tasks": {name: [look.tasks[name] for look in looks] for name in sorted(looks[0].tasks)},
    }


def _sized(looks: Sequence[Look]) -> dict[str, tuple[dict[str, list[float]], float, int]]:
    """What has a size, by its name and the program's; by how much it may grow a call, and in how many that shows."""
    programs, daemons = _programs(looks), sorted(looks[0].tasks)
    used = {name: [look.malloc_bytes[name] / 1024 for look in looks] for name in daemons}
    data = {"data in redis": [look.redis_bytes / 1024 for look in looks]}
    blocks = {name: [look.python_blocks[name] for look in looks] for name in daemons}
    written = {name: [look.footprints[name].own_bytes / 1024 for look in looks] for name in programs}
    resident = {name: [look.footprints[name].resident_bytes / 1024 for look in looks] for name in programs}
    return {
        "KB in use": ({**used, **data}, USED_LIMIT_KB, CALLS_THAT_TELL),
        "Python's blocks in use": (blocks, BLOCKS_LIMIT, CALLS_THAT_TELL),
        "KB written and held": (written, HELD_LIMIT_KB, CALLS_THAT_TELL_OF_HELD),
        "KB resident": (resident, HELD_LIMIT_KB, CALLS_THAT_TELL_OF_HELD),
    }


def _growths(series: Mapping[str, Sequence[float]]) -> dict[str, Growth]:
    return {name: Growth.of(taken) for name, taken in series.items()}


def _sized_row(name: str, growth: Growth) -> Row:
    return {
        "": name,
        "first quarter": round(growth.first),
        "last quarter": round(growth.last),
        "a call": growth.a_call.median,
        "from (95 %)": growth.a_call.low,
        "to": growth.a_call.high,
    }


def _counted_row(name: str, counted: Mapping[str, Mapping[str, Growth]]) -> Row:
    row: Row = {"": name}
    for what, growths in counted.items():
        growth = growths.get(name)
        row[what] = None if growth is None else growth.first
        row[f"{what}, last"] = None if growth is None else growth.last
    return row
