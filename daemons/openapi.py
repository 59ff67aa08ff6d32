"""OpenAPI documents of the workers: what their doors have in common, and the types of the wire as schemas.

A document is built of what the code checks against (models, constants, settings), so that the two cannot differ.
"""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any, Literal

from aiohttp import hdrs, web
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from daemons import wire
from daemons.admission import NUMBER
from daemons.doors import MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_HEADERS, STATUS, ErrorBody
from daemons.errors import AtCapacity, BadRequest, CallboxError, Fenced, Unavailable

PATH = "/openapi.json"
SPECIFICATION = "3.1.0"
ADMISSION = (BadRequest, Fenced, AtCapacity, Unavailable)  # what a door that needs a place may answer instead
_SCHEMAS = "#/components/schemas/"
_PARAMETERS = "#/components/parameters/"

Json = dict[str, Any]


def route(loaded: Callable[[], Json]) -> web.RouteDef:
    """The door at which the document is had. It takes a tenth of a second to make: `loaded` gives one that is there."""

    async def show(_: web.Request) -> web.Response:
        return web.json_response(loaded())

    return web.get(PATH, show)


def document(
    role: wire.Role,
    summary: str,
    paths: Mapping[str, Mapping[str, Json]],
    *,
    request_line_bytes: int,
    takes: Iterable[type],
    gives: Iterable[type],
) -> Json:
    """`takes` and `gives`: the types (models or TypedDicts) that `ref` is asked for, by who writes them."""
    return {
        "openapi": SPECIFICATION,
        "info": {
            "title": f"Callbox {role}",
            "version": version("callbox"),
            "summary": summary,
            "description": (
                "Health and metrics are at this port + 1: /livez, /readyz, /health, /metrics. "
                f"A request's line may have {request_line_bytes} bytes, each of its headers {MAX_HEADER_BYTES}, and it "
                f"may have {MAX_HEADERS} of them; what goes beyond, or is no HTTP, is answered with 400 in plain text. "
                "An operation that answers 101 is a WebSocket; `x-messages` names the schemas of its text frames."
            ),
        },
        "paths": {
            **paths,
            PATH: {
                "get": operation(
                    "getDocument", "This document.", answers={"200": json_answer("OpenAPI", {"type": "object"})}
                )
            },
        },
        "components": {"schemas": _schemas(takes, (*gives, ErrorBody)), "parameters": _CALL_HEADERS},
    }


def operation(
    name: str,
    summary: str,
    *,
    says: str = "",
    parameters: Iterable[Json] = (),
    body: Json | None = None,
    refuses: Iterable[type[CallboxError]] = (),
    answers: Mapping[str, Json],
    **more: Json,
) -> Json:
    """One method of a path. `answers` by status; beside them any door says that it is loading or that it failed."""
    described: Json = {"operationId": name, "summary": summary, **more}
    if says:
        described["description"] = says
    if parameters := list(parameters):
        described["parameters"] = parameters
    if body is not None:
        described["requestBody"] = {"required": True, "content": body}
    described["responses"] = {**answers, **_refusals({*refuses, Unavailable})}
    return described


def socket(
    name: str,
    summary: str,
    *,
    says: str,
    parameters: Iterable[Json] = (),
    refuses: Iterable[type[CallboxError]] = (),
    takes: Iterable[type] = (),
    gives: Iterable[type] = (),
) -> Json:
    """A door for WebSockets, as far as it can be told: its handshake."""
    return operation(
        name,
        summary,
        says=says,
        parameters=parameters,
        refuses={*refuses, BadRequest},
        answers={"101": {"description": "The WebSocket is open."}},
        **{"x-messages": {"client": [ref(kind) for kind in takes], "server": [ref(kind) for kind in gives]}},
    )


def ref(kind: type) -> Json:
    return {"$ref": _SCHEMAS + kind.__name__}


def call_headers() -> list[Json]:
    """The parameters under which a request is made for a call."""
    return [{"$ref": _PARAMETERS + name} for name in _CALL_HEADERS]


def parameter(name: str, place: Literal["query", "header", "path"], says: str, schema: Json) -> Json:
    return {"name": name, "in": place, "description": says, "required": place == "path", "schema": schema}


def json_body(kind: type) -> Json:
    return {"application/json": {"schema": ref(kind)}}


def json_answer(says: str, *schemas: Json) -> Json:
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
    return answer(says, {"application/json": schema})


def answer(says: str, content: Mapping[str, Json], headers: Mapping[str, Json] | None = None) -> Json:
    """`content`: schemas by media type; `headers`: schemas of those that are always there."""
    described: Json = {"description": says, "content": {kind: {"schema": schema} for kind, schema in content.items()}}
    if headers:
        described["headers"] = {name: {"required": True, "schema": schema} for name, schema in headers.items()}
    return described


def too_large() -> dict[str, Json]:
    return {"413": json_answer(f"The body is larger than {MAX_BODY_BYTES} bytes.", ref(ErrorBody))}


def server_sent_events(*kinds: type, last: str | None = None) -> Json:
    """Of each event; its data are JSON, but for those of the `last` one."""
    data: list[Json] = [
        {"type": "string", "contentMediaType": "application/json", "contentSchema": ref(kind)} for kind in kinds
    ]
    if last is not None:
        data.append({"const": last})
    says = "A stream of server-sent events; this is the schema of one."
    return {"type": "object", "description": says, "required": ["data"], "properties": {"data": {"anyOf": data}}}


def binary(says: str) -> Json:
    return {"type": "string", "format": "binary", "description": says}


def whole(pattern: str) -> str:
    """Of what is matched from its beginning to its end, as JSON Schema has it."""
    return f"^(?:{pattern})$"


def _refusals(errors: set[type[CallboxError]]) -> dict[str, Json]:
    """By status, in the words of the errors themselves."""
    says: dict[int, list[str]] = defaultdict(list)
    for error in sorted(errors, key=lambda error: error.__name__):
        status, kind = STATUS[error]
        says[status].append(f"`{kind}`: {inspect.getdoc(error)}")
    says[500].append("`internal_error`: this worker failed; its log says more.")
    refused: dict[str, Json] = {}
    for status, sentences in sorted(says.items()):
        headers: Json | None = {str(hdrs.RETRY_AFTER): {"type": "integer", "minimum": 1}} if status == 503 else None
        refused[str(status)] = answer("\n".join(sentences), {"application/json": ref(ErrorBody)}, headers)
    return refused


def _schemas(takes: Iterable[type], gives: Iterable[type]) -> Json:
    kinds: list[tuple[type, JsonSchemaMode, TypeAdapter[Any]]] = [
        *((kind, "validation", TypeAdapter(kind)) for kind in takes),
        *((kind, "serialization", TypeAdapter(kind)) for kind in gives),
    ]
    _, described = TypeAdapter.json_schemas(kinds, ref_template=_SCHEMAS + "{model}")
    schemas: Json = described["$defs"]
    return schemas


_NUMBER = {"type": "string", "pattern": whole(NUMBER.pattern)}
_CALL_HEADERS: dict[str, Json] = {
    "CallId": parameter(
        wire.CALL_ID,
        "header",
        "The call that this request belongs to. Given with the next three, or not at all: then it takes a direct slot.",
        {"type": "string"},
    ),
    "Slot": parameter(wire.SLOT, "header", "The slot of this worker that the call has leased.", _NUMBER),
    "Fence": parameter(wire.FENCE, "header", "The lease's fence; an older one is refused.", _NUMBER),
    "Boot": parameter(wire.BOOT, "header", "The boot of this worker, as /health tells it.", {"type": "string"}),
}
