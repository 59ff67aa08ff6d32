from pathlib import Path

import pytest

from daemons.tts.encode import CONTENT_TYPES
from tests.conformance import asked
from tests.speech_samples import needs_librivox
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration


@needs_librivox
async def test_the_doors_do_what_the_document_says(tts: WorkerProcess, tmp_path: Path) -> None:
    assert await asked(tts, tmp_path, examples=16) == {
        "POST /v1/audio/speech": {*CONTENT_TYPES.values(), 400, 405, 409},
        "POST /tts/stream": {CONTENT_TYPES["pcm"], 400, 405, 409},
        "GET /tts/live": {400, 405, 409},
        "GET /tts/stats/{id}": {"application/json", 404, 405},
        "GET /tts/traces/{id}.wav": {404, 405},
        "GET /stream": {400, 405},
        "GET /config": {"application/json", 405},
    }
