"""The doors of the speech and chat workers: what a client says there, and what of the answer must come out again."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from daemons import wire
from daemons.audio import STT_RATE_HZ, Pcm, Samples, wav_bytes
from daemons.wire import Role

CHUNK_BYTES = STT_RATE_HZ * 2 // 5  # of audio on /stt/live: 200 ms
_BOUNDARY = "callbox-drill"

Said = str | bytes


class Broken(Exception):
    """An answer that is not whole, or says that something failed."""


@dataclass(frozen=True, slots=True)
class Post:
    """`gist` takes the body of the answer. `is_bulky`: the answer is far larger than all that is buffered on its way.

    `gist` raises Broken.
    """

    role: Role
    path: str
    body: bytes
    gist: Callable[[bytes], str]
    content_type: str = "application/json"
    kind: str = ""
    is_bulky: bool = False

    @property
    def name(self) -> str:
        return f"{self.role} POST {self.path}{self.kind and f' ({self.kind})'}"


@dataclass(frozen=True, slots=True)
class Socket:
    """`gist` takes what the worker said, to the message that holds `end`. It raises Broken."""

    role: Role
    path: str
    messages: Sequence[Said]
    end: str
    gist: Callable[[Sequence[Said]], str]
    is_bulky: bool = False

    @property
    def name(self) -> str:
        return f"{self.role} WS {self.path.partition('?')[0]}"


Door = Post | Socket


def tts_doors(text: str, stream_text: str) -> list[Door]:
    """All say `text`, at most 4000 characters; /stream, which waits for who listens, says `stream_text`."""
    said: list[wire.TtsRequest] = [wire.TtsText(id=1, text=text), wire.TtsEnd(id=1)]
    return [
        Post("tts", "/tts/stream", _json(text=text), _digest, is_bulky=True),
        Post("tts", "/v1/audio/speech", _json(input=text, response_format="mp3"), _digest, kind="mp3"),
        Post("tts", "/v1/audio/speech", _json(input=text, response_format="wav"), _digest, kind="wav"),
        Socket(
            "tts", "/tts/live", [one.model_dump_json() for one in said], '"type":"done"', _gist_of_live, is_bulky=True
        ),
        Socket(
            "tts", f"/stream?text={quote(stream_text)}", [], "backend_stream_complete", _gist_of_stream, is_bulky=True
        ),
    ]


def llm_doors(words: str, max_tokens: int) -> list[Door]:
    asked = {"messages": [{"role": "user", "content": words}], "max_tokens": max_tokens, "temperature": 0, "seed": 1}
    path = "/v1/chat/completions"
    return [
        Post("llm", path, _json(**asked, stream=True), _gist_of_chat_stream, kind="streamed"),
        Post("llm", path, _json(**asked), _gist_of_chat, kind="whole"),
    ]


def stt_doors(samples: Samples, *, live_samples: Samples | None = None) -> list[Door]:
    """`samples`: int16 [n] at 16 kHz. `live_samples`, at most 30 s, are what /stt/live hears instead."""
    pcm = (samples if live_samples is None else live_samples).tobytes()
    audio = [pcm[at : at + CHUNK_BYTES] for at in range(0, len(pcm), CHUNK_BYTES)]
    path, form = "/v1/audio/transcriptions", f"multipart/form-data; boundary={_BOUNDARY}"
    return [
        Post("stt", path, _upload(samples), _gist_of_transcript, form, kind="whole"),
        Post("stt", path, _upload(samples, stream="true"), _gist_of_transcript_stream, form, kind="streamed"),
        Socket(
            "stt",
            "/stt/live",
            [wire.SttStart(utterance=1).model_dump_json(), *audio, wire.SttCommit(id=1).model_dump_json()],
            '"type":"final"',
            _gist_of_final,
        ),
    ]


def _json(**body: object) -> bytes:
    return json.dumps(body).encode()


def _upload(samples: Samples, **fields: str) -> bytes:
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in {"model": "whisper-1", **fields}.items()]
    parts.append(b'name="file"; filename="speech.wav"\r\n\r\n' + wav_bytes(Pcm(samples, STT_RATE_HZ)))
    head = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
    return b"".join(head + part + b"\r\n" for part in parts) + f"--{_BOUNDARY}--\r\n".encode()


def _digest(audio: bytes) -> str:
    if not audio:
        raise Broken("no audio")
    return hashlib.sha256(audio).hexdigest()


def _gist_of_live(said: Sequence[Said]) -> str:
    if not isinstance(last := said[-1], str) or json.loads(last)["type"] != "done":
        raise Broken(f"it ended with {said[-1]!r:.200}")
    return _digest(b"".join(wire.AudioHeader.split(frame)[1] for frame in said if isinstance(frame, bytes)))


def _gist_of_stream(said: Sequence[Said]) -> str:
    events = [json.loads(one) for one in said if isinstance(one, str)]
    if wrong := [event["data"] for event in events if event["event"].endswith("error")]:
        raise Broken(f"it failed: {wrong}")
    return _digest(b"".join(frame for frame in said if isinstance(frame, bytes)))


def _gist_of_chat(body: bytes) -> str:
    choice = json.loads(body)["choices"][0]
    return _whole(choice["message"]["content"], choice["finish_reason"])


def _gist_of_chat_stream(body: bytes) -> str:
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    if not lines or lines[-1] != b"[DONE]":
        raise Broken(f"it ended with {body[-200:]!r}")
    choices = [choice for line in lines[:-1] for choice in _event(line)["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    return _whole(text, choices[-1]["finish_reason"] if choices else None)


def _event(line: bytes) -> dict[str, list[dict[str, dict[str, str]]]]:
    event: dict[str, list[dict[str, dict[str, str]]]] = json.loads(line)
    if "error" in event:
        raise Broken(f"it failed: {event['error']}")
    return event


def _whole(text: str, finish_reason: object) -> str:
    if not text or finish_reason not in ("stop", "length"):
        raise Broken(f"it ended for {finish_reason!r} after {text[-100:]!r}")
    return text


def _gist_of_transcript(body: bytes) -> str:
    return _words(json.loads(body)["text"])


def _gist_of_transcript_stream(body: bytes) -> str:
    events = [json.loads(line[6:]) for line in body.split(b"\n") if line.startswith(b"data: ")]
    if not events or events[-1]["type"] != "transcript.text.done":
        raise Broken(f"it ended with {body[-200:]!r}")
    return _words(events[-1]["text"])


def _gist_of_final(said: Sequence[Said]) -> str:
    last = wire.stt_reply.validate_json(said[-1])
    if not isinstance(last, wire.SttFinal):
        raise Broken(f"it ended with {said[-1]!r:.200}")
    return _words(last.text)


def _words(text: str) -> str:
    if not text:
        raise Broken("no words")
    return text
