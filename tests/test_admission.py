import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from daemons.admission import MAX_REQUESTS_PER_SLOT, Admission, Claim, Work
from daemons.errors import AtCapacity, BadRequest, CallboxError, Fenced, Unavailable
from daemons.health import Block
from daemons.registry import AcquireStatus, Member, Registry, connect
from ops.redis_server import RedisServer
from tests.waiting import until
from tests.worker_process import WorkerProcess

BOOT = "boot-1"


class Desk:
    """An admission of two slots and one direct slot, and what it asks the registry."""

    def __init__(self) -> None:
        self.granted: dict[tuple[int, int], str] = {}  # (slot, fence) → call, as the registry has it
        self.asked: list[tuple[int, int]] = []
        self.registry_answers = True
        self.block = Block()
        self.draining = asyncio.Event()
        self.metrics = CollectorRegistry()
        self.admission = Admission(
            slots=2,
            direct_slots=1,
            boot=BOOT,
            block=self.block,
            confirm=self._confirm,
            draining=self.draining,
            metrics=self.metrics,
        )

    def claim(self, call: str, slot: int, fence: int) -> dict[str, str]:
        """The headers of a lease that the registry knows."""
        self.granted[slot, fence] = call
        return forged(call, slot, fence)

    async def passes(self, headers: Mapping[str, str]) -> None:
        async with self.admission.admit(headers):
            pass

    async def _confirm(self, slot: int, fence: int) -> str | None:
        self.asked.append((slot, fence))
        await asyncio.sleep(0)
        if not self.registry_answers:
            raise Unavailable("the registry does not answer")
        return self.granted.get((slot, fence))


def forged(call: str, slot: int, fence: int, boot: str = BOOT) -> dict[str, str]:
    return Claim(call, slot, fence, boot).headers()


class Request:
    """A request that works until it is told to stop."""

    def __init__(self, desk: Desk, headers: Mapping[str, str]) -> None:
        self.work: Work | None = None
        self._task = asyncio.create_task(self._serve(desk, headers))

    async def _serve(self, desk: Desk, headers: Mapping[str, str]) -> None:
        async with desk.admission.admit(headers) as self.work:
            await asyncio.Event().wait()

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def why_it_ended(self) -> str:
        try:
            await asyncio.wait_for(self._task, 1)
        except asyncio.CancelledError as reason:
            return str(reason)
        raise AssertionError("it was not aborted")

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


Begin = Callable[[Mapping[str, str]], Awaitable[Request]]


@pytest.fixture
async def desk() -> Desk:
    return Desk()


@pytest.fixture
async def begin(desk: Desk) -> AsyncIterator[Begin]:
    async with AsyncExitStack() as requests:

        async def begin(headers: Mapping[str, str]) -> Request:
            request = Request(desk, headers)
            requests.push_async_callback(request.stop)
            for _ in range(5):
                await asyncio.sleep(0)
            assert request.ended or request.work is not None
            return request

        yield begin


# What a request says


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Call-Id": "c"},
        {"X-Call-Id": "c", "X-Slot": "0", "X-Fence": "1"},
        {"X-Boot": BOOT},
        {**forged("c", 0, 1), "X-Boot": ""},
        {**forged("c", 0, 1), "X-Slot": "-1"},
        {**forged("c", 0, 1), "X-Slot": "one"},
        {**forged("c", 0, 1), "X-Fence": "1.5"},
        {**forged("c", 0, 1), "X-Fence": "٣"},
        {**forged("c", 0, 1), "X-Fence": "9" * 5000},
    ],
)
def test_a_part_of_a_lease_is_a_bad_request(headers: dict[str, str]) -> None:
    with pytest.raises(BadRequest, match="X-Call-Id, X-Slot, X-Fence"):
        Claim.from_headers(headers)


def test_a_lease_comes_back_from_its_headers() -> None:
    assert Claim.from_headers(forged("c", 1, 42)) == Claim("c", 1, 42, BOOT)
    assert Claim.from_headers({"Accept": "*/*"}) is None


# Requests of a call


async def test_a_lease_is_confirmed_once(desk: Desk) -> None:
    headers = desk.claim("call-1", 0, 7)
    await desk.passes(headers)
    await desk.passes(headers)
    assert desk.asked == [(0, 7)]
    assert desk.admission.max_fence == 7


@pytest.mark.parametrize(
    ("headers", "refusal", "said"),
    [
        (forged("call-1", 0, 6), Fenced, "fence 7, yours 6"),
        (forged("call-2", 0, 7), Fenced, "held by"),
        (forged("call-1", 0, 7, boot="boot-0"), Fenced, "boot boot-0"),
        (forged("call-1", 0, 8), Fenced, "the registry knows no lease"),
        (forged("call-1", 2, 8), BadRequest, "no slot 2; this worker has 2"),
    ],
)
async def test_what_is_no_lease_of_now_is_refused(
    desk: Desk, headers: dict[str, str], refusal: type[CallboxError], said: str
) -> None:
    await desk.passes(desk.claim("call-1", 0, 7))
    with pytest.raises(refusal, match=said):
        await desk.passes(headers)
    await desk.passes(forged("call-1", 0, 7))
    assert desk.metrics.get_sample_value("callbox_refusals_total", {"reason": refusal.__name__}) == 1


async def test_a_forged_fence_does_not_poison_the_slot(desk: Desk, begin: Begin) -> None:
    working = await begin(desk.claim("call-1", 0, 7))
    with pytest.raises(Fenced):
        await desk.passes(forged("thief", 0, 999))
    assert not working.ended
    assert desk.admission.max_fence == 7
    await desk.passes(desk.claim("call-2", 0, 8))


async def test_a_newer_lease_aborts_the_older_work_of_its_slot_alone(desk: Desk, begin: Begin) -> None:
    older = [await begin(desk.claim("call-1", 0, 7)), await begin(desk.claim("call-1", 0, 7))]
    neighbour = await begin(desk.claim("call-2", 1, 6))
    newer = await begin(desk.claim("call-3", 0, 8))
    for request in older:
        assert await request.why_it_ended() == "superseded by fence 8"
    assert not neighbour.ended
    assert not newer.ended
    with pytest.raises(Fenced):
        await desk.passes(forged("call-1", 0, 7))


async def test_two_first_requests_of_a_call_do_not_abort_each_other(desk: Desk, begin: Begin) -> None:
    headers = desk.claim("call-1", 0, 7)
    requests = [Request(desk, headers) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(request.ended for request in requests)
    await asyncio.gather(*(request.stop() for request in requests))


async def test_nobody_is_let_in_unconfirmed_while_the_registry_is_away(desk: Desk) -> None:
    await desk.passes(desk.claim("call-1", 0, 7))
    desk.registry_answers = False
    with pytest.raises(Unavailable):
        await desk.passes(desk.claim("call-2", 0, 8))
    await desk.passes(forged("call-1", 0, 7))
    desk.registry_answers = True
    await desk.passes(forged("call-2", 0, 8))


async def test_a_call_has_a_bounded_number_of_requests(desk: Desk, begin: Begin) -> None:
    headers = desk.claim("call-1", 0, 7)
    requests = [await begin(headers) for _ in range(MAX_REQUESTS_PER_SLOT)]
    with pytest.raises(AtCapacity, match="8 requests under way"):
        await desk.passes(headers)
    await requests[0].stop()
    await desk.passes(headers)


# Requests without a call


async def test_strangers_share_the_direct_slots(desk: Desk, begin: Begin) -> None:
    stranger = await begin({})
    assert stranger.work is not None
    assert stranger.work.slot == 2, "after the leased ones"
    with pytest.raises(AtCapacity, match="all 1 places"):
        await desk.passes({})
    await desk.passes(desk.claim("call-1", 0, 7))
    await stranger.stop()
    await desk.passes({})


async def test_places_that_are_held_are_counted_until_they_are_free(desk: Desk, begin: Begin) -> None:
    requests = [await begin({}), await begin(desk.claim("call-1", 0, 7)), await begin(desk.claim("call-2", 1, 8))]
    assert held(desk) == (2, 1)
    for request in requests:
        await request.stop()
    assert held(desk) == (0, 0)


def held(desk: Desk) -> tuple[float | None, ...]:
    """(by calls, by others)"""
    return tuple(desk.metrics.get_sample_value("callbox_requests_open", {"kind": kind}) for kind in ("call", "direct"))


async def test_while_draining_calls_go_on_and_strangers_are_sent_away(desk: Desk) -> None:
    desk.draining.set()
    with pytest.raises(Unavailable, match="stopping"):
        await desk.passes({})
    await desk.passes(desk.claim("call-1", 0, 7))


# Work


async def test_everything_under_way_can_be_aborted(desk: Desk, begin: Begin) -> None:
    requests = [await begin({}), await begin(desk.claim("call-1", 0, 7))]
    desk.admission.abort_all("this worker is stopping")
    for request in requests:
        assert await request.why_it_ended() == "this worker is stopping"


async def test_work_is_in_flight_only_while_it_can_be_advanced(desk: Desk) -> None:
    async with desk.admission.admit({}) as work:
        assert desk.block.in_flight == 0, "an open stream is no work"
        with work.active():
            assert desk.block.in_flight == 1
        assert desk.block.in_flight == 0


# Against the real registry


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Registry]:
    registry = connect(url)
    try:
        yield registry
    finally:
        await registry.close()


@pytest.mark.integration
async def test_a_worker_asks_the_registry(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        async with (
            connected(server.url) as registry,
            aiohttp.ClientSession() as http,
        ):
            with WorkerProcess("tts", server.url, tmp_path, module="tests.tiny_daemon") as tiny:

                async def work(call: str, member: Member, fence: int, seconds: float = 0) -> int:
                    headers = forged(call, member.slot, fence, member.boot)
                    async with http.get(f"{tiny.url}/work?s={seconds}", headers=headers) as answer:
                        return answer.status

                async def grant(call: str) -> Member:
                    async def is_granted() -> bool:
                        return (await registry.acquire(call, ["tts"])).status is AcquireStatus.GRANTED

                    await until(is_granted, within_s=5)
                    return (await registry.lookup(call)).bundle["tts"]

                first = await grant("call-1")
                assert await work("call-1", first, first.fence) == 200
                assert await work("call-2", first, first.fence + 1) == 409
                async with http.get(f"{tiny.url}/work?s=0", headers={"X-Slot": "0"}) as answer:
                    assert answer.status == 400
                    assert "X-Fence" in await answer.text()

                under_way = asyncio.create_task(work("call-1", first, first.fence, seconds=30))
                await until(lambda: tiny.health()["in_flight"] == 1, within_s=2)
                await registry.release("call-1", first.fence)
                second = await grant("call-2")
                assert second.slot == first.slot
                assert await work("call-2", second, second.fence) == 200
                assert await under_way == 409, "it was cut off, and aiohttp's client asked again"
                assert await work("call-1", first, first.fence) == 409

                server.kill()
                assert await work("call-2", second, second.fence) == 200, "it was confirmed before"
                assert await work("call-3", second, second.fence + 1) == 503
