"""The scripts against their model: as Hypothesis would break them, and as a seeded crowd does."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from ops.drill.registry.sides import BlockingRedis
from ops.redis_server import RedisServer
from tests.registry.life import RegistryLife

pytestmark = pytest.mark.integration

LIVES, STEPS = 500, 200


@pytest.fixture(scope="module")
def blocking_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingRedis]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        redis = BlockingRedis(server.port)
        redis.do("CONFIG", "SET", "appendonly", "no")  # the scripts are tested here, not the disk
        yield redis
        redis.close()


@pytest.mark.timeout(1800)
def test_no_life_of_the_registry_parts_it_from_its_model(blocking_redis: BlockingRedis) -> None:
    """The same lives in each run; `callbox drill registry` leads others."""
    steps = Counter[str]()

    class Life(RegistryLife):
        def __init__(self) -> None:
            super().__init__(blocking_redis, steps)

    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=LIVES * 5 // 4,  # Hypothesis ends some of them early
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        ),
    )
    assert steps["looks"] >= LIVES * STEPS
