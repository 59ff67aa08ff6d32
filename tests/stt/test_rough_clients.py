import pytest

from tests.rough_client import refuses_a_broken_body, rough_requests, treats_as_told
from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration


@rough_requests
async def test_headers_are_bounded(stt: WorkerProcess, request_: bytes, status: int) -> None:
    await treats_as_told(stt, request_, status)


async def test_a_body_that_cannot_be_unpacked_is_refused_in_words(stt: WorkerProcess) -> None:
    await refuses_a_broken_body(stt, "/v1/audio/transcriptions", "multipart/form-data; boundary=x")
