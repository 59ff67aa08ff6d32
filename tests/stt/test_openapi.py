from pathlib import Path

import pytest

from tests.conformance import asked
from tests.speech_samples import needs_librivox
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration


@needs_librivox
async def test_the_doors_do_what_the_document_says(stt: WorkerProcess, tmp_path: Path) -> None:
    assert await asked(stt, tmp_path, examples=40) == {
        "POST /v1/audio/transcriptions": {"application/json", "text/plain", "text/event-stream", 400, 405, 409},
        "GET /stt/live": {400, 405, 409},
        "GET /v1/models": {"application/json", 405},
    }
