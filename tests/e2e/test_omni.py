"""A whole box whose model hears: brought up by its command, without stt, and nobody misses it."""

import asyncio

import pytest

from ops.private_box import PrivateBox
from tests.agent.omni_box import HearingServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


async def test_a_box_whose_model_hears_runs_no_stt_and_takes_calls() -> None:
    async with HearingServer() as upstream:
        box = PrivateBox(llm_engine="openai", llm_upstream_url=upstream.url, llm_omni=True, slots=1)
        await asyncio.to_thread(box.__enter__)
        try:
            status = await asyncio.to_thread(box.status)
            assert status["ok"]
            assert "stt" not in {program["name"] for program in status["programs"]}
            findings = await asyncio.to_thread(box.callbox, "doctor", "--quick")
            assert "llm: ready" in findings.stdout
            assert "stt" not in findings.stdout
            done = await asyncio.to_thread(box.callbox, "call", "--say", "What is the capital of France?")
            assert "you:   What is the capital of France?" in done.stdout
            assert "agent: The capital of France is Paris." in done.stdout
        finally:
            await asyncio.to_thread(box.__exit__, None, None, None)
