"""What the documents say, without a model: they are valid, and tell every door and no other."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from daemons.llm.openapi import llm_document
from daemons.llm.server import LlmService
from daemons.openapi import Json
from daemons.runtime import Runtime, Service
from daemons.settings import Settings
from daemons.stt.openapi import stt_document
from daemons.stt.server import SttService
from daemons.tts.openapi import tts_document
from daemons.tts.server import TtsService

DOCUMENTS: dict[str, tuple[Callable[[Runtime], Service], Json]] = {
    "stt": (SttService, stt_document(("en",))),
    "llm": (LlmService, llm_document({"text"})),
    "tts": (TtsService, tts_document("heart")),
}
documents = pytest.mark.parametrize("described", [document for _, document in DOCUMENTS.values()], ids=DOCUMENTS)


@documents
def test_the_document_is_openapi(described: Json) -> None:
    validate(described)


@documents
def test_what_is_referred_to_is_there_and_what_is_there_is_referred_to(described: Json) -> None:
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(described)))
    assert referred == set(described["components"]["schemas"])


@documents
def test_each_operation_has_a_name_of_its_own(described: Json) -> None:
    names = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(names) >= 3


@pytest.mark.parametrize("role", DOCUMENTS)
async def test_the_document_tells_every_door_and_no_other(role: str, tmp_path: Path) -> None:
    make_service, described = DOCUMENTS[role]
    settings = Settings(var_dir=tmp_path, models_dir=tmp_path)
    for model in (settings.stt_model, settings.vad_model):
        (tmp_path / model).mkdir()
    runtime = Runtime(settings, make_service)
    service = make_service(runtime)
    try:
        doors = {(route.method.lower(), route.path) for route in service.routes()}  # type: ignore[attr-defined]
    finally:
        await service.close()
        await runtime.registry.close()
    assert doors == {(method, path) for path, methods in described["paths"].items() for method in methods}
