"""Transcriptions in the shapes that OpenAI's clients know."""

import json
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from daemons.stt.form import Format
from daemons.stt.speech import Piece


def in_words(pieces: Iterable[Piece]) -> str:
    return " ".join(piece.text for piece in pieces)


def whole(form: Format, language: str, duration_s: float, pieces: list[Piece]) -> web.Response:
    """What the engine does not know (probabilities, tokens) is left out, not made up."""
    text = in_words(pieces)
    if form == "text":
        return web.Response(text=text + "\n")
    if form == "json":
        return web.json_response({"text": text})
    segments = [
        {"id": number, "start": round(piece.start_s, 3), "end": round(piece.end_s, 3), "text": piece.text}
        for number, piece in enumerate(pieces)
    ]
    return web.json_response(
        {
            "task": "transcribe",
            "language": language,
            "duration": round(duration_s, 3),
            "text": text,
            "segments": segments,
        }
    )


def delta(piece: Piece, *, is_first: bool) -> bytes:
    return _event({"type": "transcript.text.delta", "delta": piece.text if is_first else f" {piece.text}"})


def done(pieces: Iterable[Piece]) -> bytes:
    return _event({"type": "transcript.text.done", "text": in_words(pieces)})


def failed(message: str) -> bytes:
    return _event({"error": {"message": message, "type": "stream_ended", "code": "stream_ended"}})


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
