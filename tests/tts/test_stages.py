import logging

import pytest
from prometheus_client import CollectorRegistry

from daemons.tts.stages import WARN_AGAIN_S, Stages


def test_work_and_audio_are_counted_by_stage() -> None:
    metrics = CollectorRegistry()
    stages = Stages(metrics)
    stages.observe({"synthesis": 0.2, "finishing": 0.01}, audio_s=2.0)
    stages.observe({"synthesis": 0.1, "finishing": 0.01}, audio_s=0.0)  # nothing could be said
    assert metrics.get_sample_value("callbox_compute_seconds_total", {"stage": "synthesis"}) == pytest.approx(0.3)
    assert metrics.get_sample_value("callbox_compute_seconds_total", {"stage": "finishing"}) == pytest.approx(0.02)
    assert metrics.get_sample_value("callbox_audio_seconds_total") == 2.0
    assert metrics.get_sample_value("callbox_tts_chunk_rtf_count", {"stage": "synthesis"}) == 1


def test_a_stage_that_is_slower_than_speech_is_named_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    stages = Stages(CollectorRegistry(), lambda: now_s)
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            stages.observe({"synthesis": 3.0, "finishing": 0.1}, audio_s=2.0)
            now_s += 1.0
        assert caplog.messages == ["stage synthesis is slower than speech: RTF 1.50 (3.00 s for 2.00 s of audio)"]
        stages.observe({"synthesis": 0.1, "finishing": 2.5}, audio_s=2.0)
        assert "stage finishing" in caplog.messages[-1]
        now_s += WARN_AGAIN_S
        stages.observe({"synthesis": 3.0, "finishing": 0.1}, audio_s=2.0)
    assert len(caplog.messages) == 3
    assert "9 chunks since" in caplog.messages[-1]
