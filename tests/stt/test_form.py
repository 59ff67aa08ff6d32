"""Forms as no client would write them, sent to the real door."""

import http.client
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.worker_process import WorkerProcess

pytestmark = pytest.mark.integration

DOOR = "/v1/audio/transcriptions"
BOUNDARY = b"seam"
GOOD = (
    b'--seam\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'
    b'--seam\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0data\0\0\0\0\r\n--seam--\r\n"
)


def post(stt: WorkerProcess, body: bytes, content_type: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", stt.port, timeout=20)
    try:
        connection.request("POST", DOOR, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def is_told(status: int, text: str) -> bool:
    """The words, or a sentence of what is wrong with the form."""
    if status == 200:
        return "text" in json.loads(text)
    return 400 <= status < 500 and bool(json.loads(text)["error"]["message"])


def test_a_good_one_is_taken(stt: WorkerProcess) -> None:
    assert post(stt, GOOD, "multipart/form-data; boundary=seam") == (200, '{"text": ""}')


HEADER = st.sampled_from(
    [
        b'Content-Disposition: form-data; name="file"',
        b'Content-Disposition: form-data; name="language"',
        b'Content-Disposition: form-data; name="file"; filename="\xff"',
        b"Content-Disposition: \xff",
        b"Content-Disposition",
        b"Content-Type: multipart/mixed; boundary=other",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: nonesuch",
        b"Content-Encoding: gzip",
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: many",
        b": ",
        b"X: " + b"y" * 9000,
    ]
)
PART = st.builds(
    lambda headers, body, end: b"--seam\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body + end,
    st.lists(HEADER, max_size=3),
    st.binary(max_size=60) | st.just(GOOD),
    st.sampled_from([b"\r\n", b"\n", b"", b"\r\n--seam--\r\n"]),
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(parts=st.lists(PART, max_size=4))
def test_a_strange_form_is_refused_in_a_sentence(stt: WorkerProcess, parts: list[bytes]) -> None:
    assert is_told(*post(stt, b"".join(parts), "multipart/form-data; boundary=seam"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(at=st.integers(0, len(GOOD)), gone=st.integers(0, 40), stroke=st.binary(max_size=10))
def test_a_damaged_form_is_refused_in_a_sentence(stt: WorkerProcess, at: int, gone: int, stroke: bytes) -> None:
    assert is_told(*post(stt, GOOD[:at] + stroke + GOOD[at + gone :], "multipart/form-data; boundary=seam"))


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=other",
        "multipart/form-data; boundary=" + "x" * 80,
        "multipart/mixed; boundary=seam",
        "multipart/" + "x" * 500,
        "audio/wav",
    ],
)
def test_a_form_under_a_strange_name_is_told(stt: WorkerProcess, content_type: str) -> None:
    assert is_told(*post(stt, GOOD, content_type))


def test_a_form_of_many_fields_is_refused(stt: WorkerProcess) -> None:
    field = b'--seam\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n'
    status, text = post(stt, field * 1000 + GOOD, "multipart/form-data; boundary=seam")
    assert status == 400
    assert "more than" in text
