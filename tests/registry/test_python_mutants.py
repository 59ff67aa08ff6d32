"""The mutation gate for what stands in no script: holders, the fences of a worker's doors, the monitor, health."""

import inspect
import sys
import textwrap
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from daemons.admission import Admission
from daemons.errors import Fenced
from daemons.monitor.server import Monitor
from daemons.registry import Holder, connect, holder
from tests import test_admission, test_runtime
from tests.registry import test_holder, test_regressions
from tests.registry.mutants import Test
from tests.test_admission import Begin, Desk, begin, desk, forged
from tests.worker_process import WorkerProcess

__all__ = ["begin", "desk"]  # fixtures

pytestmark = pytest.mark.integration

CAUGHT = (AssertionError, TimeoutError, pytest.fail.Exception)


def break_method(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, old: str, new: str) -> None:
    source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
    assert source.count(old) == 1, f"{owner.__name__}.{name} has changed: correct this mutant"
    broken: dict[str, Any] = {}
    exec(source.replace(old, new), vars(sys.modules[owner.__module__]), broken)  # noqa: S102
    monkeypatch.setattr(owner, name, broken[name])


async def run(test: Test, **given: object) -> None:
    await test(**{name: given[name] for name in inspect.signature(test).parameters if name in given})


# Of the demo's nine faults, the two that are not the registry's


async def test_health_in_a_thread_of_the_worker_is_noticed(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_regressions, "WORKER_MODULE", "tests.registry.health_in_a_thread")
    with pytest.raises(AssertionError, match="held the health endpoint up"):
        await test_regressions.test_a_model_call_does_not_block_the_health_endpoint(redis_url, tmp_path)


async def test_a_monitor_that_an_error_ends_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_method(monkeypatch, Monitor, "_each", "self._failed.labels(name).inc()", "return")
    with pytest.raises(AssertionError, match="did not happen"):
        await test_regressions.test_an_error_does_not_end_the_monitor(tmp_path)


# Holders, and workers of a registry that lost its data


async def test_a_worker_that_takes_calls_before_their_holders_adopt_is_noticed(
    redis_url: str, redis: Redis, tmp_path: Path
) -> None:
    def make_impatient() -> WorkerProcess:
        return WorkerProcess("tts", redis_url, tmp_path, module="tests.registry.calls_at_once")

    registry = connect(redis_url)
    with pytest.raises(AssertionError):
        await test_runtime.test_a_registry_that_lost_its_data_is_told_again_once(make_impatient, registry, redis)
    await registry.close()


OFFERS = "await self._registry.adopt(self.call, self.fence, self._bundle) is AdoptStatus.TAKEN"


@pytest.mark.parametrize(
    ("method", "old", "new", "caught_by"),
    [
        pytest.param(
            "_renew",
            OFFERS,
            "True",
            test_holder.test_a_registry_that_lost_its_data_gets_it_back,
            id="gives nothing back",
        ),
        pytest.param(
            "_renew",
            OFFERS,
            OFFERS.replace("AdoptStatus.TAKEN", "None"),
            test_holder.test_a_slot_that_was_given_away_is_not_fought_over,
            id="does not heed a refusal",
        ),
        pytest.param(
            "_renew",
            "self.moving = frozenset(answer.moving)",
            "pass",
            test_holder.test_a_drained_member_is_moving_and_can_be_swapped,
            id="does not see who drains",
        ),
        pytest.param(
            "look_again",
            "self._look.set()",
            "pass",
            test_holder.test_a_drained_member_is_moving_and_can_be_swapped,
            id="does not look when told to",
        ),
        pytest.param(
            "keep",
            "left_s = (give_up_ns - sent_ns) / 1e9",
            "left_s = GIVE_UP_S",
            test_holder.test_a_redis_that_hangs_is_given_up_in_time,
            id="never gives up",
        ),
    ],
)
async def test_no_broken_holder_survives(
    redis_url: str,
    redis: Redis,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    old: str,
    new: str,
    caught_by: Test,
) -> None:
    monkeypatch.setattr(holder, "GIVE_UP_S", 2.0)
    monkeypatch.setattr(holder, "RENEW_S", 10.0 if method == "look_again" else 1.0)
    monkeypatch.setattr(test_holder, "GIVE_UP_S", 2.0)
    for folder, is_broken in (tmp_path / "whole", False), (tmp_path / "broken", True):
        await redis.flushall()
        folder.mkdir()
        registry = connect(redis_url)
        await test_holder.worker_up(registry, "t:1")
        if is_broken:
            break_method(monkeypatch, Holder, method, old, new)
        with pytest.raises(CAUGHT) if is_broken else nullcontext():
            await run(caught_by, registry=registry, redis=redis, tmp_path=folder)
        await registry.close()


# The fences of a worker's doors


def refused(headers: dict[str, str], said: str) -> Test:
    return partial(test_admission.test_what_is_no_lease_of_now_is_refused, headers=headers, refusal=Fenced, said=said)


@pytest.mark.parametrize(
    ("old", "new", "caught_by"),
    [
        pytest.param(
            "claim.boot != self._boot",
            "False",
            refused(forged("call-1", 0, 7, boot="boot-0"), "boot boot-0"),
            id="lets in who means another boot",
        ),
        pytest.param(
            "claim.fence < slot.fence or ",
            "",
            refused(forged("call-1", 0, 6), "fence 7, yours 6"),
            id="lets in a lower fence",
        ),
        pytest.param(
            " or claim.call != slot.call",
            "",
            refused(forged("call-2", 0, 7), "held by"),
            id="lets in another call under the same fence",
        ),
        pytest.param(
            "holder != claim.call",
            "False",
            test_admission.test_a_forged_fence_does_not_poison_the_slot,
            id="believes a higher fence",
        ),
        pytest.param(
            "holder = await self._confirm(claim.slot, claim.fence)",
            "slot.fence = claim.fence; holder = await self._confirm(claim.slot, claim.fence)",
            test_admission.test_a_forged_fence_does_not_poison_the_slot,
            id="is poisoned by a forged fence",
        ),
        pytest.param(
            'work.abort(f"superseded by fence {claim.fence}")',
            "pass",
            test_admission.test_a_newer_lease_aborts_the_older_work_of_its_slot_alone,
            id="lets superseded work go on",
        ),
        pytest.param(
            "if claim.fence > slot.fence:  # another",
            "if True:  # another",
            test_admission.test_two_first_requests_of_a_call_do_not_abort_each_other,
            id="aborts the work of the same lease",
        ),
        pytest.param(
            "if claim.fence > slot.fence:\n        holder",
            "if True:\n        holder",
            test_admission.test_a_lease_is_confirmed_once,
            id="asks the registry each time",
        ),
    ],
)
async def test_no_broken_door_survives(
    desk: Desk, begin: Begin, monkeypatch: pytest.MonkeyPatch, old: str, new: str, caught_by: Test
) -> None:
    break_method(monkeypatch, Admission, "_check", old, new)
    with pytest.raises(CAUGHT):
        await run(caught_by, desk=desk, begin=begin)
