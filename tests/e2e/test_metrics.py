"""What one call leaves in the metrics of the box."""

import asyncio
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ops.caller import synthesize, talk
from ops.private_box import PrivateBox
from ops.robot import dial
from tests.waiting import until

pytestmark = pytest.mark.e2e

COUNTED_S = 10.0  # after the call: the agent leaves, the monitor looks, both publish once a second


def counters(box: PrivateBox) -> dict[str, float]:
    """`daemon name{label values}` of each sample."""
    found = {}
    for role in ("stt", "tts", "llm", "agent", "token", "monitor"):
        port = getattr(box.settings, f"{role}_port") + 1
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[f"{role} {sample.name}{{{','.join(sample.labels.values())}}}"] = sample.value
    return found


async def test_a_call_is_counted_and_nothing_of_it_is_a_fault(box: PrivateBox) -> None:
    before = counters(box)

    def gained() -> dict[str, float]:
        return {name: value - before.get(name, 0) for name, value in counters(box).items()}

    question = await synthesize(box.settings, "What is the capital of France?")
    async with dial(box.settings.door_url) as robot:
        await talk(robot, [question])
    await until(lambda: gained()["agent callbox_calls_ended_total{caller_left}"] == 1, COUNTED_S)
    await asyncio.sleep(2)
    seen = gained()
    assert seen["token callbox_admissions_total{granted}"] == 1
    assert seen["monitor callbox_registry_grants_total{}"] == 1
    assert seen["agent callbox_turn_response_seconds_count{}"] == 1
    assert 0.1 < seen["agent callbox_turn_response_seconds_sum{}"] < 30
    assert seen["tts callbox_tts_first_chunk_seconds_count{}"] >= 2, "the greeting and the answer"
    assert seen["llm callbox_llm_first_token_seconds_count{}"] >= 1
    for role, stage in (("stt", "transcription"), ("tts", "synthesis")):
        assert seen[f"{role} callbox_compute_seconds_total{{{stage}}}"] > 0
        assert seen[f"{role} callbox_audio_seconds_total{{}}"] > 0
    for name in (
        *("stt callbox_streams_ended_total{client_gone}", "tts callbox_streams_ended_total{client_gone}"),
        *("monitor callbox_registry_losses_total{call}", "monitor callbox_registry_losses_total{member}"),
    ):
        assert seen.get(name, 0) == 0, f"{name}: the agent closes its sockets and gives its lease back"
