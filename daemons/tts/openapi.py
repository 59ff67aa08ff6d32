"""The OpenAPI document of the text-to-speech worker."""

from daemons import wire
from daemons.audio import TTS_RATE_HZ
from daemons.doors import ErrorBody
from daemons.openapi import (
    ADMISSION,
    Json,
    answer,
    binary,
    call_headers,
    document,
    json_answer,
    json_body,
    operation,
    parameter,
    ref,
    socket,
    too_large,
    whole,
)
from daemons.tts.bodies import OPENAI_VOICES, SAMPLE_RATE, STREAM_ID, Config, Figures, SpeechBody, StreamBody
from daemons.tts.encode import CONTENT_TYPES, LENGTH_AHEAD
from daemons.tts.live import MAX_OPEN
from daemons.tts.speech import LONGEST_TEXT_CHARS
from daemons.tts.vibevoice import DEFAULT_CFG_SCALE, FROM_SAMPLE_DIGITS, REQUEST_LINE_BYTES, VibeVoiceLog

RAW = f"PCM16-LE mono {TTS_RATE_HZ} Hz"
AUDIO_HEADERS: dict[str, Json] = {STREAM_ID: {"type": "string"}, SAMPLE_RATE: {"type": "integer", "const": TTS_RATE_HZ}}
TEXTS = (wire.TtsText, wire.TtsFlush, wire.TtsEnd, wire.TtsCancel)
REPLIES = (wire.TtsSegment, wire.TtsDone, wire.StreamError)


def tts_document(voice: str) -> Json:
    """`voice`: the one that is loaded."""
    described = document(
        "tts",
        "Text to speech",
        {
            "/v1/audio/speech": {"post": _speech()},
            "/tts/stream": {"post": _stream()},
            "/tts/live": {"get": _live()},
            "/tts/stats/{id}": {"get": _stats()},
            "/tts/traces/{id}.wav": {"get": _trace()},
            "/stream": {"get": _vibevoice()},
            "/config": {"get": _config()},
        },
        request_line_bytes=REQUEST_LINE_BYTES,
        takes=(SpeechBody, StreamBody, *TEXTS),
        gives=(Figures, Config, VibeVoiceLog, *REPLIES),
    )
    schemas = described["components"]["schemas"]
    schemas["SpeechBody"]["properties"]["voice"]["enum"] = [None, *sorted({voice, *OPENAI_VOICES})]
    schemas["StreamBody"]["properties"]["speaker"]["enum"] = [None, voice]
    return described


def _speech() -> Json:
    sounds = {CONTENT_TYPES[name]: binary(name) for name in CONTENT_TYPES}
    return operation(
        "createSpeech",
        "Speech as OpenAI's clients ask for it.",
        says=(
            f"Sent as it is made; {' and '.join(sorted(LENGTH_AHEAD))}, which say at their head how long they are, "
            "only with `stream`. OpenAI's names of voices all mean the one that is loaded."
        ),
        parameters=call_headers(),
        body=json_body(SpeechBody),
        refuses=ADMISSION,
        answers={"200": answer("The audio.", sounds, AUDIO_HEADERS), **too_large()},
    )


def _stream() -> Json:
    return operation(
        "streamSpeech",
        "Speech as raw samples, as soon as they are made.",
        says=f"A stream that fails is cut off. Its figures are at /tts/stats/ with the id in {STREAM_ID}.",
        parameters=call_headers(),
        body=json_body(StreamBody),
        refuses=ADMISSION,
        answers={"200": answer(RAW, {CONTENT_TYPES["pcm"]: binary(RAW)}, AUDIO_HEADERS), **too_large()},
    )


def _live() -> Json:
    return socket(
        "liveSpeech",
        "Text in as it is written, audio out.",
        says=(
            f"At most {MAX_OPEN} requests at once, told apart by `id`. Binary frames: request id (u32), "
            f"offset of the first sample (u64), both little-endian, then {RAW}, {wire.TTS_FRAME_SAMPLES} samples each."
        ),
        parameters=call_headers(),
        refuses=ADMISSION,
        takes=TEXTS,
        gives=REPLIES,
    )


def _vibevoice() -> Json:
    number = {"type": "string", "pattern": whole(f"[0-9]{{1,{FROM_SAMPLE_DIGITS}}}"), "default": "0"}
    return socket(
        "vibevoiceStream",
        "The wire of VibeVoice-Realtime's demo server.",
        says=(
            f"Text frames tell what happens, binary ones are {RAW}. Busy is told as `backend_busy`, close code 1013; "
            "what is wrong with the query as `backend_error`. What cannot be read of `cfg` and `steps` has its default."
        ),
        parameters=(
            *call_headers(),
            parameter("text", "query", "What is said.", {"type": "string", "maxLength": LONGEST_TEXT_CHARS}),
            parameter("cfg", "query", "Told back, no more.", {"type": "number", "default": DEFAULT_CFG_SCALE}),
            parameter("steps", "query", "Told back, no more.", {"type": "integer", "minimum": 1}),
            parameter("voice", "query", "Told back, no more.", {"type": "string"}),
            parameter("resume", "query", "The `stream_id` of a stream that was cut off.", {"type": "string"}),
            parameter("from_sample", "query", "With `resume`: the first sample that is missing.", number),
        ),
        gives=(VibeVoiceLog,),
    )


def _config() -> Json:
    return operation(
        "getConfig", "What VibeVoice's page asks for first.", answers={"200": json_answer("The voice.", ref(Config))}
    )


def _stats() -> Json:
    return operation(
        "getStreamFigures",
        "How a stream went that came to its end.",
        parameters=[parameter("id", "path", f"{STREAM_ID} of its answer.", {"type": "string"})],
        answers={"200": json_answer("Its figures.", ref(Figures)), **_not_kept()},
    )


def _trace() -> Json:
    return operation(
        "getTrace",
        "All that was made on /tts/live under the name of a trace.",
        parameters=[parameter("id", "path", "The `trace` of its TtsText.", {"type": "string"})],
        answers={"200": answer("A WAV file.", {CONTENT_TYPES["wav"]: binary("WAV")}), **_not_kept()},
    )


def _not_kept() -> dict[str, Json]:
    return {"404": json_answer("Nothing is kept under this name, or not any more.", ref(ErrorBody))}
