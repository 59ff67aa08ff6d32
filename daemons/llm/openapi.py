"""The OpenAPI document of the chat worker."""

from collections.abc import Collection
from typing import get_args

from daemons import wire
from daemons.doors import MAX_REQUEST_LINE_BYTES, ErrorBody, ModelList
from daemons.llm.chat import (
    DEFAULT_MAX_TOKENS,
    DONE,
    MAX_CHARS,
    MAX_MEDIA_BYTES,
    ChatBody,
    Chunk,
    Completion,
)
from daemons.llm.generation import Modality
from daemons.openapi import (
    ADMISSION,
    Json,
    answer,
    call_headers,
    document,
    json_answer,
    json_body,
    operation,
    parameter,
    ref,
    server_sent_events,
    too_large,
)


def llm_document(takes: Collection[Modality]) -> Json:
    """`takes`: what the engine's messages may be made of."""
    return document(
        "llm",
        "Chat",
        {
            "/v1/chat/completions": {"post": _chat(takes)},
            "/llm/keep": {"post": _keep()},
            "/v1/models": {"get": _models()},
        },
        request_line_bytes=MAX_REQUEST_LINE_BYTES,
        takes=(ChatBody,),
        gives=(Completion, Chunk, ModelList),
    )


def _chat(takes: Collection[Modality]) -> Json:
    events = server_sent_events(Chunk, ErrorBody, last=DONE)
    priority = {"type": "string", "enum": list(get_args(wire.Priority)), "default": "committed"}
    return operation(
        "createChatCompletion",
        "An answer, whole or as it is written.",
        says=(
            f"This engine takes {' and '.join(sorted(takes))}; other parts of a message are refused, as is a prompt "
            f"that it has no room for. All text may have {MAX_CHARS} characters, all sound and pictures "
            f"{MAX_MEDIA_BYTES} bytes. Without `max_tokens` an answer has at most {DEFAULT_MAX_TOKENS}."
        ),
        parameters=(
            *call_headers(),
            parameter(wire.PRIORITY, "header", "A speculative answer may be dropped for committed ones.", priority),
        ),
        body=json_body(ChatBody),
        refuses=ADMISSION,
        answers={
            "200": answer(
                "The answer; with `stream`, server-sent events.",
                {"application/json": ref(Completion), "text/event-stream": events},
            ),
            **too_large(),
        },
    )


def _keep() -> Json:
    return operation(
        "keepAnswer",
        "The call's speculative answer is wanted: it is not dropped for others any more.",
        says="Of a call alone. It may be under way or wait; where there is none, nothing happens.",
        parameters=call_headers(),
        refuses=ADMISSION,
        answers={"204": {"description": "It is kept, if there is one."}},
    )


def _models() -> Json:
    return operation(
        "listModels", "The model that is loaded.", answers={"200": json_answer("One model.", ref(ModelList))}
    )
