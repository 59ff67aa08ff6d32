"""The OpenAPI document of the speech-to-text worker."""

from collections.abc import Sequence

from daemons import wire
from daemons.audio import STT_RATE_HZ
from daemons.doors import MAX_REQUEST_LINE_BYTES, ErrorBody, ModelList
from daemons.openapi import (
    ADMISSION,
    Json,
    answer,
    binary,
    call_headers,
    document,
    json_answer,
    operation,
    ref,
    server_sent_events,
    socket,
    whole,
)
from daemons.stt.answers import TextDelta, TextDone, Transcription, VerboseTranscription
from daemons.stt.files import LONGEST_FILE_S, TAKEN
from daemons.stt.form import (
    FALSE,
    FORMATS,
    GRANULARITY,
    LANGUAGE_CODE,
    LONGEST_FIELD_BYTES,
    LONGEST_FILE_BYTES,
    MOST_FIELDS,
    REGION,
    TIMESTAMPS,
    TRUE,
)
from daemons.stt.live import LONGEST_S, MAX_COMMITS

REQUESTS = (wire.SttStart, wire.SttCommit, wire.SttCancel)
REPLIES = (wire.SttPartial, wire.SttFinal, wire.StreamError)


def stt_document(languages: Sequence[str]) -> Json:
    """`languages`: the engine's, none when it does not say."""
    return document(
        "stt",
        "Speech to text",
        {
            "/v1/audio/transcriptions": {"post": _transcriptions(languages)},
            "/stt/live": {"get": _live()},
            "/v1/models": {"get": _models()},
        },
        request_line_bytes=MAX_REQUEST_LINE_BYTES,
        takes=REQUESTS,
        gives=(Transcription, VerboseTranscription, TextDelta, TextDone, ModelList, *REPLIES),
    )


def _transcriptions(languages: Sequence[str]) -> Json:
    events = server_sent_events(TextDelta, TextDone, ErrorBody)
    return operation(
        "createTranscription",
        "What is said in a file.",
        says=f"A form of at most {MOST_FIELDS} fields; fields that are not named here are ignored.",
        parameters=call_headers(),
        body={"multipart/form-data": {"schema": _form(languages)}},
        refuses=ADMISSION,
        answers={
            "200": answer(
                "The words, in the form that was asked for; with `stream`, server-sent events.",
                {
                    "application/json": {"anyOf": [ref(VerboseTranscription), ref(Transcription)]},
                    "text/plain": {"type": "string"},
                    "text/event-stream": events,
                },
            )
        },
    )


def _form(languages: Sequence[str]) -> Json:
    file = f"{TAKEN}; at most {LONGEST_FILE_BYTES} bytes and {LONGEST_FILE_S} s."
    language = whole(f"(({'|'.join(languages) or LANGUAGE_CODE})({REGION})?)?")  # empty as if it were not there
    return {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": binary(file),
            "response_format": {"type": "string", "enum": list(FORMATS), "default": FORMATS[0]},
            "language": {"type": "string", "pattern": language},
            "prompt": {"type": "string", "maxLength": LONGEST_FIELD_BYTES},
            "stream": {"type": "string", "enum": [*TRUE, *FALSE], "default": FALSE[0]},
            **{name: {"type": "string", "enum": [GRANULARITY]} for name in TIMESTAMPS},
        },
    }


def _live() -> Json:
    return socket(
        "liveTranscription",
        "Audio in while somebody speaks, the words so far when they are asked for.",
        says=(
            f"Binary frames from the client: PCM16-LE mono {STT_RATE_HZ} Hz, for the utterance that SttStart opened; "
            f"it holds at most {LONGEST_S} s. At most {MAX_COMMITS} commits may be under way."
        ),
        parameters=call_headers(),
        refuses=ADMISSION,
        takes=REQUESTS,
        gives=REPLIES,
    )


def _models() -> Json:
    return operation(
        "listModels", "The model that is loaded.", answers={"200": json_answer("One model.", ref(ModelList))}
    )
