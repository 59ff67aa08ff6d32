"""What a process has in use shows what it keeps, to the kilobyte."""

import os

from prometheus_client import CollectorRegistry

from daemons.memory import count_memory


def test_what_is_kept_is_counted_and_what_is_let_go_is_not() -> None:
    metrics = CollectorRegistry()
    count_memory(metrics)

    def used_bytes() -> float:
        return metrics.get_sample_value("callbox_malloc_used_bytes") or 0

    def blocks() -> float:
        return metrics.get_sample_value("callbox_python_blocks") or 0

    bytes_before, blocks_before = used_bytes(), blocks()
    kept = [os.urandom(10_240) for _ in range(200)]
    objects = [object() for _ in range(5_000)]
    assert 2_000_000 < used_bytes() - bytes_before < 2_400_000
    assert 5_000 <= blocks() - blocks_before < 6_000
    kept.clear()
    objects.clear()
    assert abs(used_bytes() - bytes_before) < 200_000
    assert abs(blocks() - blocks_before) < 1_000
