"""Transcriptions in the shapes that OpenAI's clients know."""

import json
from collections.abc import Iterable
from typing import Literal

from aiohttp import web
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from daemons.doors import ErrorBody, error_body
from daemons.stt.form import Format
from daemons.stt.speech import Piece


@with_config(ConfigDict(extra="forbid"))  # or a verbose one that lacks something would be one of these
class Transcription(TypedDict):
    text: str


class Segment(TypedDict):
    """What was said from `start` to `end`, in seconds."""

    id: int
    start: float
    end: float
    text: str


class VerboseTranscription(TypedDict):
    """`duration` in seconds. What the engine does not know (probabilities, tokens) is left out, not made up."""

    task: Literal["transcribe"]
    language: str
    duration: float
    text: str
    segments: list[Segment]


class TextDelta(TypedDict):
    """An event of a stream: more of the text."""

    type: Literal["transcript.text.delta"]
    delta: str


class TextDone(TypedDict):
    """The last event of a stream: all of the text."""

    type: Literal["transcript.text.done"]
    text: str


def in_words(pieces: Iterable[Piece]) -> str:
    return " ".join(piece.text for piece in pieces)


def whole(form: Format, language: str, duration_s: float, pieces: list[Piece]) -> web.Response:
    text = in_words(pieces)
    if form == "text":
        return web.Response(text=text + "\n")
    if form == "json":
        brief: Transcription = {"text": text}
        return web.json_response(brief)
    segments: list[Segment] = [
        {"id": number, "start": round(piece.start_s, 3), "end": round(piece.end_s, 3), "text": piece.text}
        for number, piece in enumerate(pieces)
    ]
    verbose: VerboseTranscription = {
        "task": "transcribe",
        "language": language,
        "duration": round(duration_s, 3),
        "text": text,
        "segments": segments,
    }
    return web.json_response(verbose)


def delta(piece: Piece, *, is_first: bool) -> bytes:
    return _event({"type": "transcript.text.delta", "delta": piece.text if is_first else f" {piece.text}"})


def done(pieces: Iterable[Piece]) -> bytes:
    return _event({"type": "transcript.text.done", "text": in_words(pieces)})


def failed(message: str) -> bytes:
    return _event(error_body("stream_ended", message))


def _event(data: TextDelta | TextDone | ErrorBody) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
