"""What clients that went away may leave at a worker, which is nothing, and what its metrics must say of them."""

from collections.abc import Iterator, Sequence

from ops.drill.disconnects.leaving import Left
from ops.drill.disconnects.watch import State
from ops.metrics import Metrics
from ops.slope import Slope

SETTLE_S = 20.0
# asyncio's pool for what blocks (min(32, cores + 4)) starts a thread when it is first needed
MORE_THREADS = 8
MORE_FILES = 2
MORE_TASKS = 1
# A connection with its tasks and buffers takes 50 KB and more; the allocators' own steps are noise below that.
GROWTH_LIMIT_KB = 25.0
ROUNDS_THAT_TELL = 200  # of one worker

_MAY_END = {"finished", "cancelled", "client_gone"}


def is_settled(before: State, now: State) -> bool:
    return not list(left_over(before, now))


def left_over(before: State, now: State) -> Iterator[str]:
    """In words, what is there that was not there before."""
    for name, more in (("in_flight", 0), ("direct_places", 0), ("call_places", 0), ("leases", 0), ("connections", 0)):
        if (found := getattr(now, name)) > more:
            yield f"{name}: {found}, not 0"
    for name, more in (("tasks", MORE_TASKS), ("threads", MORE_THREADS), ("files", MORE_FILES)):
        was, found = getattr(before, name), getattr(now, name)
        if found > was + more:
            yield f"{name}: {found}, {was} before"


def growth_kb(memory_bytes: Sequence[tuple[int, int]]) -> float:
    """A round, over the second half of `memory_bytes`: (rounds so far, bytes)."""
    return Slope.of(memory_bytes[len(memory_bytes) // 2 :]).median / 1024


def contradictions(role: str, lefts: Sequence[Left], before: Metrics, after: Metrics) -> Iterator[str]:
    """Between what clients did and what the worker counted, as far as a client can know."""

    def more(name: str, *labels: str) -> int:
        return int(after.get((name, labels), 0) - before.get((name, labels), 0))

    admitted = more("callbox_requests_total", "call") + more("callbox_requests_total", "direct")
    ended = {
        how[0]: more(name, *how) for name, how in after if name == "callbox_streams_ended_total" and more(name, *how)
    }
    refused = {
        reason[0]: more(name, *reason)
        for name, reason in after
        if name == "callbox_refusals_total" and more(name, *reason)
    }
    if unexpected := {how: count for how, count in ended.items() if how not in _MAY_END}:
        yield f"streams ended in ways that no client brought about: {unexpected}"
    gone, least, most = (
        ended.get("client_gone", 0),
        sum(left.was_cut_off for left in lefts),
        sum(left.may_have_been_cut_off for left in lefts),
    )
    if not least <= gone <= most:
        yield f"{gone} streams whose client went away are counted; there were {least} to {most}"
    if ended.get("finished", 0) < (whole := sum(left.has_all for left in lefts)):
        yield f"{ended.get('finished', 0)} streams are counted as finished; {whole} clients had theirs whole"
    if refused.get("AtCapacity", 0) < (seen := sum(left.refused for left in lefts)) or set(refused) - {"AtCapacity"}:
        yield f"refusals counted: {refused}; {seen} clients were refused for want of a place"
    if role == "llm" and sum(ended.values()) != admitted:
        yield f"{admitted} requests were admitted, and {sum(ended.values())} streams ended: {ended}"
