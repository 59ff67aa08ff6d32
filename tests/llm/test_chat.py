"""What a request may say, before any engine sees it."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from daemons.errors import BadRequest
from daemons.llm.chat import MAX_MEDIA_BYTES, ChatBody, Reply
from daemons.llm.generation import OMNI, TEXT_ONLY, Audio, ChatMessage, Generated, Image
from daemons.streams import sentence

HELLO = [{"role": "user", "content": "Hello"}]
AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def message(*parts: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": list(parts)}]


def test_what_is_left_open_stays_open() -> None:
    generation = ChatBody.model_validate({"messages": HELLO, "model": "gpt-4o", "user": "me"}).generation(TEXT_ONLY)
    assert generation.messages == [ChatMessage("user", "Hello")]
    assert (generation.temperature, generation.top_p, generation.repeat_penalty, generation.seed) == (None,) * 4
    assert (generation.stop, generation.max_tokens) == ([], 150)


@pytest.mark.parametrize("name", ["repeat_penalty", "repetition_penalty"])
def test_both_names_of_the_repeat_penalty_are_known(name: str) -> None:
    assert ChatBody.model_validate({"messages": HELLO, name: 1.3}).generation(TEXT_ONLY).repeat_penalty == 1.3


@pytest.mark.parametrize(("seed", "used"), [(0, 0), (7, 7), (-1, 2**32 - 1), (2**40 + 5, 5)])
def test_any_seed_is_one(seed: int, used: int) -> None:
    assert ChatBody.model_validate({"messages": HELLO, "seed": seed}).generation(TEXT_ONLY).seed == used


def test_nulls_mean_what_leaving_out_means() -> None:
    nothing = dict.fromkeys(("stream", "stream_options", "max_tokens", "stop", "seed", "n", "tools", "logprobs"))
    without = ChatBody.model_validate({"messages": HELLO}).generation(TEXT_ONLY)
    assert ChatBody.model_validate({"messages": HELLO, **nothing}).generation(TEXT_ONLY) == without


def test_parts_keep_their_order() -> None:
    body = ChatBody.model_validate({"messages": message({"type": "text", "text": "Look: "}, IMAGE, AUDIO)})
    [seen] = body.generation(OMNI).messages
    assert seen.content == ("Look: ", Image("data:image/png;base64,AAAA"), Audio("AAAA", "wav"))
    assert seen.text == "Look: "


@pytest.mark.parametrize("part", [AUDIO, IMAGE])
def test_an_engine_that_only_reads_says_so(part: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=f"takes text; {part['type']} is none of it"):
        ChatBody.model_validate({"messages": message(part)}).generation(TEXT_ONLY)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"messages": message({"type": "input_audio", "input_audio": {"data": "&", "format": "wav"}})}, "base64"),
        ({"messages": message({"type": "input_audio", "input_audio": {"data": "", "format": "ogg"}})}, "format"),
        ({"messages": message({"type": "image_url", "image_url": {"url": "http://10.0.0.1/x.png"}})}, "url"),
        ({"messages": message({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})}, "url"),
        ({"messages": message({"type": "video_url"})}, "video_url"),
        ({"messages": message(*[{"type": "text", "text": ""}] * 65)}, "64"),
        ({"messages": HELLO * 513}, "512"),
        ({"messages": message({"type": "text", "text": "x" * 100_001}) * 2}, "200000"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "Unicode"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": ["x"] * 9}, "stop"),
        ({"stop": "x" * 257}, "stop"),
        ({"max_tokens": 32_769}, "max_tokens"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 100}}, "logit_bias"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{}]}, "functions"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"seed": 2**63}, "seed"),
    ],
)
def test_what_cannot_be_had_is_refused_by_its_name(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatBody.model_validate({"messages": HELLO, **change})
    assert reason in sentence(caught.value)


def test_sound_has_a_limit() -> None:
    files = [{"type": "input_audio", "input_audio": {"data": "A" * (MAX_MEDIA_BYTES // 2), "format": "wav"}}] * 3
    with pytest.raises(ValidationError, match="the sound and the pictures"):
        ChatBody.model_validate({"messages": message(*files)})


@pytest.mark.parametrize("streams_usage", [False, True])
def test_usage_is_in_every_chunk_once_it_was_asked_for(streams_usage: bool) -> None:
    chunk = json.loads(Reply("m", streams_usage=streams_usage).chunk({"content": "x"})[6:])
    assert ("usage" in chunk) == streams_usage
    assert chunk.get("usage") is None
    last = json.loads(Reply("m", streams_usage=streams_usage).usage_chunk(Generated("stop", 1, 2, 0))[6:])
    assert last["usage"]["total_tokens"] == 3
