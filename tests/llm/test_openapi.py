from pathlib import Path

import pytest

from tests.conformance import asked
from tests.speech_samples import needs_librivox
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration


@needs_librivox
async def test_the_doors_do_what_the_document_says(llm: WorkerProcess, tmp_path: Path) -> None:
    assert await asked(llm, tmp_path, examples=12) == {
        "POST /v1/chat/completions": {"application/json", "text/event-stream", 400, 405, 409},
        "POST /llm/keep": {400, 405, 409},
        "GET /v1/models": {"application/json", 405},
    }
