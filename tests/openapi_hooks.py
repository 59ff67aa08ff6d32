"""Loaded into schemathesis: makes what it asks cheap to answer, and likely to be answered at all.

It looks again at what is changed here: a request that is not out of bounds any more need not be refused.
"""

import itertools
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, HookContext, Response
from schemathesis.core.parameters import ParameterLocation
from schemathesis.transport.serialization import Binary

from daemons import wire
from daemons.admission import Claim
from daemons.audio import STT_RATE_HZ, Pcm, to_int16, wav_bytes
from daemons.llm.chat import MAX_TOKENS
from daemons.stt import form
from daemons.tts.bodies import LONGEST_INPUT_CHARS, STREAM_ID
from daemons.tts.encode import FORMATS
from daemons.tts.speech import LONGEST_TEXT_CHARS
from tests.speech_samples import librivox

FEW_TOKENS = 1
FEW_CHARS = 60
LEASE = Claim(call="nobody's", slot=0, fence=1, boot="another").headers()

_asked = itertools.count()
_streams: list[str] = []
_speech = wav_bytes(Pcm(to_int16(librivox()[0][0][: 2 * STT_RATE_HZ]), STT_RATE_HZ))

_streamed = itertools.cycle([{}, {"stream": True}])
_forms = itertools.cycle([{"stream": "true"}, *[{"response_format": str(name)} for name in form.FORMATS]])
_encoded = itertools.cycle([{"response_format": name} for name in FORMATS])
schemathesis.openapi.format("binary", st.sampled_from([_speech, _speech[:1000], b"RIFF"]).map(Binary))


@schemathesis.hook
def map_body(context: HookContext, body: Any) -> Any:
    """Forms are mostly nothing but a file, and one that holds a file cannot be judged again later."""
    return {**body, **next(_forms)} if isinstance(body, dict) and list(body) == ["file"] else body


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    if wire.CALL_ID in (parameter.name for parameter in case.operation.headers):
        _lease(case)
    if case.operation.path == "/tts/stats/{id}" and _is_valid(case) and next(_asked) % 2 and _streams:
        case.path_parameters["id"] = _streams[-1]
    if isinstance(case.body, dict):
        match case.operation.path:
            case "/v1/chat/completions":
                _write_little(case.body)
                case.body.update(next(_streamed) if _is_answered(case) else {})
            case "/v1/audio/speech":
                _say_little(case.body, "input", LONGEST_INPUT_CHARS)
                case.body.update(next(_encoded) if _is_answered(case) else {})
            case "/tts/stream":
                _say_little(case.body, "text", LONGEST_TEXT_CHARS)


@schemathesis.hook
def after_call(context: HookContext, case: Case[Any], response: Response) -> None:
    _streams.extend(response.headers.get(STREAM_ID.lower(), ()))


def _is_valid(case: Case[Any]) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive


def _is_answered(case: Case[Any]) -> bool:
    return _is_valid(case) and not any(name in case.headers for name in LEASE)


def _lease(case: Case[Any]) -> None:
    """Chance makes parts of a lease, and with these nothing else is looked at: so some get a whole one, some none."""
    if case.meta is None or case.meta.is_negative_at(ParameterLocation.HEADER):
        return
    turn = next(_asked) % 4
    if turn == 0 and _is_valid(case):
        case.headers.update(LEASE)
    elif turn == 1 or not _is_valid(case) or case.meta.phase.name.value == "fuzzing":
        for name in LEASE:
            case.headers.pop(name, None)


def _write_little(body: dict[str, Any]) -> None:
    limits = [name for name in ("max_tokens", "max_completion_tokens") if body.get(name) is not None]
    for name in limits:
        if type(body[name]) is int and FEW_TOKENS < body[name] <= MAX_TOKENS:
            body[name] = FEW_TOKENS
    if not limits:
        body["max_tokens"] = FEW_TOKENS


def _say_little(body: dict[str, Any], name: str, longest: int) -> None:
    text = body.get(name)
    if isinstance(text, str) and len(text) <= longest:
        body[name] = text[:FEW_CHARS]
