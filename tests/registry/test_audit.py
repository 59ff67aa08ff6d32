"""The audit log has a line for everything that changes, and `reap` says what it has ended."""

import pytest

from daemons.registry import AdoptStatus, Event, Member, Reaped
from tests.registry.box import TTL_MS, Box

pytestmark = pytest.mark.integration


async def last(box: Box, kind: str) -> Event:
    """The latest line of this kind; fails when there is none."""
    found = [event for event in await box.registry.events(count=10_000) if event.kind == kind]
    assert found, f"nothing was logged as {kind}: {await box.kinds()}"
    return found[-1]


async def test_how_a_call_fares(box: Box) -> None:
    await box.up("t:1", "tts")
    await box.grant("held")
    await box.acquire("waits")
    assert (await last(box, "queued")).data == {"call": "waits", "position": "1"}
    await box.acquire("too many", queue_max=1)
    assert (await last(box, "refused")).data == {"call": "too many", "why": "full"}
    await box.acquire("gives up")
    await box.registry.cancel("gives up")
    assert (await last(box, "cancelled")).data["call"] == "gives up"
    await box.pass_time(6000, beating=("t:1",))
    assert (await last(box, "expired")).data["call"] == "waits"
    assert "lost" not in await box.kinds()
    await box.pass_time(TTL_MS, beating=("t:1",))
    assert (await last(box, "lost")).data["call"] == "held"


async def test_a_reservation_that_goes_back_says_why(box: Box) -> None:
    await box.up("t:1", "tts")
    fence = await box.grant("holder")
    await box.acquire("c")
    await box.registry.release("holder", fence)
    assert (await last(box, "reserved")).data["call"] == "c"
    await box.registry.drain("t:1", box.boot("t:1"))
    assert (await last(box, "queued")).data == {"call": "c", "why": "its worker drains"}


async def test_how_a_worker_fares(box: Box) -> None:
    first = await box.up("t:1", "tts")
    await box.up("t:1", "tts")
    assert (await last(box, "retired")).data == {"worker": "t:1", "role": "tts", "boot": first, "was": "AVAILABLE"}
    await box.grant("c")
    await box.pass_time(11_000)
    assert (await last(box, "unhealthy")).data["why"] == "no heartbeat"


async def test_what_a_holder_gives_back_and_what_others_note(box: Box) -> None:
    member = Member("t:1", "http://t:1", slot=0, boot="b", fence=8)
    assert await box.registry.adopt("c", 8, {"tts": member}, TTL_MS) is AdoptStatus.OK
    assert (await last(box, "adopted")).data == {"call": "c", "fence": "8"}
    await box.registry.note("fatal", {"program": "tts", "why": "it ended"})
    assert (await last(box, "fatal")).data == {"program": "tts", "why": "it ended"}


async def test_reap_says_what_it_has_ended(box: Box) -> None:
    for worker in ("t:1", "t:2"):
        await box.up(worker, "tts")
    for call in ("c1", "c2"):
        await box.grant(call)
    reaped = Reaped()
    for _ in range(31):
        box.time.ms += 1000
        now = await box.registry.reap()
        reaped = Reaped(reaped.ended + now.ended, reaped.unhealthy + now.unhealthy, reaped.gone + now.gone)
    assert reaped == Reaped(("c1", "c2"), ("t:1", "t:2"), ("t:1", "t:2"))
