"""Holds a running worker against its own OpenAPI document: schemathesis asks, in and out of bounds, and checks answers.

It is run as the program that it is: its plugin for pytest is bound to pytest's insides.
"""

import asyncio
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

from daemons import openapi
from daemons.settings import ROOT
from tests.worker_process import WorkerProcess

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)
TIMEOUT_S = 100.0

# By operation, as in "POST /v1/audio/speech": the statuses, and in place of 200 its media types
Answers = dict[str, set[int | str]]


async def asked(worker: WorkerProcess, folder: Path, *, examples: int) -> Answers:
    """What the worker answered to each operation; each run asks the same. Fails with what schemathesis has to say.

    `examples` of each operation, beside those at the bounds of each of its parameters.
    """
    report = folder / "asked.ndjson"
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", worker.url + openapi.PATH, "--no-color"),
        *("--phases", "coverage,fuzzing", "--checks", ",".join(CHECKS), "--max-examples", str(examples)),
        *("--generation-deterministic", "--no-shrink", "--continue-on-failure", "--request-timeout", "30"),
        *("--report", "ndjson", "--report-ndjson-path", str(report)),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.openapi_hooks"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(run.communicate(), TIMEOUT_S)
    finally:
        if run.returncode is None:
            run.kill()
            await run.wait()
    assert run.returncode == 0, said.decode()
    assert "Traceback" not in (log := worker.log.read_text()), log
    return _answers(report)


def _answers(report: Path) -> Answers:
    answers: Answers = defaultdict(set)
    with report.open(encoding="utf-8") as lines:
        for line in lines:
            recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
            for interaction in recorder.get("interactions", {}).values():
                response = interaction["response"]
                status, media = response["status_code"], response["headers"]["content-type"][0].partition(";")[0]
                answers[recorder["label"]].add(media if status == 200 else status)
    return answers
