"""What the soak makes of a real daemon that keeps a little of each request, and of one that does not."""

from collections import defaultdict
from pathlib import Path

import aiohttp
import psutil
import pytest

from ops.bench.soak.growth import Growth, warm_up
from ops.bench.soak.report import BLOCKS_LIMIT, USED_LIMIT_KB
from ops.footprint import Footprint
from ops.metrics import metrics_at
from ops.redis_server import RedisServer
from ops.worker import Worker
from tests.bench.soak.leaking import KEEP, KEPT_BYTES, KEPT_OBJECTS

REQUESTS = 200
FEW = 40  # tell as much of what is counted in whole numbers
BODY = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 150}


def test_few_of_a_whole_number_that_come_and_go_are_no_growth() -> None:
    assert Growth.of([7, 8, 7, 7, 8, 7, 7, 7, 8, 7, 7, 7]).is_flat
    assert Growth.of([9, 9, 9, 8, 8, 8, 7, 7, 7, 7, 7, 7]).is_flat


def test_one_more_for_good_is_growth() -> None:
    assert not Growth.of([7] * 30 + [8] * 30).is_flat


def test_a_quarter_of_the_calls_is_not_judged() -> None:
    assert warm_up(200) == 50
    assert warm_up(8) == 2


@pytest.mark.integration
async def test_what_a_daemon_keeps_of_each_request_is_found(tmp_path: Path) -> None:
    """Ten kilobytes are, in as many requests as a soak has calls; and where nothing is kept, nothing is found."""
    with RedisServer(tmp_path) as redis:
        async with (
            Worker("llm", redis.url, tmp_path, ("tests.bench.soak.leaking",)) as worker,
            aiohttp.ClientSession() as http,
        ):
            process = psutil.Process((await worker.health(http))["pid"])

            async def growth(kind: str, requests: int = REQUESTS) -> dict[str, Growth]:
                taken: dict[str, list[float]] = defaultdict(list)
                for _ in range(requests):
                    url = f"{worker.url}/v1/chat/completions"
                    async with http.post(url, json=BODY, headers={KEEP: kind}) as answer:
                        assert answer.status == 200
                        await answer.read()
                    footprint = Footprint.of([process], without_ports=(redis.port,))
                    taken["files"].append(footprint.files)
                    taken["threads"].append(footprint.threads)
                    said = await metrics_at(http, worker.health_url)
                    taken["KB"].append(said["callbox_malloc_used_bytes", ()] / 1024)
                    taken["blocks"].append(said["callbox_python_blocks", ()])
                return {name: Growth.of(series[warm_up(requests) :]) for name, series in taken.items()}

            nothing = await growth("nothing")
            garbage = (await growth("garbage", 2 * FEW))["KB"]
            memory = (await growth("memory"))["KB"]
            objects = (await growth("objects"))["blocks"]
            files = (await growth("files", FEW))["files"]
            threads = (await growth("threads", FEW))["threads"]
    assert nothing["KB"].a_call.high < USED_LIMIT_KB
    assert nothing["blocks"].a_call.high < BLOCKS_LIMIT
    assert nothing["files"].is_flat
    assert nothing["threads"].is_flat
    assert garbage.a_call.high < USED_LIMIT_KB, "a daemon collects what its requests have left"
    assert memory.a_call.median == pytest.approx(KEPT_BYTES / 1024, rel=0.2)
    assert memory.a_call.high > USED_LIMIT_KB
    assert objects.a_call.median == pytest.approx(KEPT_OBJECTS, rel=0.2)
    assert objects.a_call.high > BLOCKS_LIMIT
    assert not files.is_flat
    assert files.a_call.median == 1
    assert not threads.is_flat
    assert threads.a_call.median == 1
