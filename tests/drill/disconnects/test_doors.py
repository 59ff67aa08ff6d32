import json

import pytest

from daemons import wire
from ops.drill.disconnects.asking import Refused, sentence_of
from ops.drill.disconnects.crowd import judged
from ops.drill.disconnects.doors import Broken, Door, Post, Socket, llm_doors, tts_doors

STREAM, _, _, LIVE, VIBEVOICE = tts_doors("One.", "One.")
CHAT_STREAM, CHAT = llm_doors("Hello", 4)
BUSY = b'{"error": {"message": "all places are taken; try again soon"}}'


def gist(door: Door, answer: object) -> str:
    assert isinstance(door, Post | Socket)
    return door.gist(answer)  # type: ignore[arg-type]


def chunk(text: str, reason: str | None = None) -> bytes:
    return (
        b"data: " + json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": reason}]}).encode() + b"\n\n"
    )


def test_audio_is_the_same_when_its_bytes_are() -> None:
    assert gist(STREAM, b"\1\2") == gist(STREAM, b"\1\2") != gist(STREAM, b"\1\3")


def test_an_answer_in_pieces_is_told_apart_from_its_frames() -> None:
    header = wire.AudioHeader(1, 0).pack()
    done = '{"type":"done"}'
    assert gist(LIVE, [header + b"\1\2", header + b"\3\4", done]) == gist(STREAM, b"\1\2\3\4")
    assert gist(CHAT_STREAM, chunk("Good ") + chunk("day") + chunk("", "stop") + b"data: [DONE]\n\n") == "Good day"


@pytest.mark.parametrize(
    ("door", "answer"),
    [
        (STREAM, b""),
        (LIVE, ['{"type":"error","message":"no"}']),
        (VIBEVOICE, ['{"event":"backend_error","data":{"message":"no"}}', b"\1\2"]),
        (CHAT_STREAM, chunk("Good ") + chunk("day", "stop")),
        (CHAT_STREAM, chunk("Good day") + b"data: [DONE]\n\n"),
        (CHAT_STREAM, b'data: {"error": {"message": "no"}}\n\ndata: [DONE]\n\n'),
        (CHAT, b'{"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}'),
    ],
)
def test_an_answer_that_is_not_whole_is_broken(door: Door, answer: object) -> None:
    with pytest.raises(Broken):
        gist(door, answer)


def test_a_refusal_is_clean_when_it_tells_why_and_when_to_come_again() -> None:
    assert sentence_of({"Retry-After": "2"}, BUSY) == "all places are taken; try again soon"
    for headers, body in (({}, BUSY), ({"Retry-After": "2"}, b'{"error": {"message": "busy"}}')):
        with pytest.raises(Broken):
            sentence_of(headers, body)


def test_a_crowd_went_well_when_one_was_refused_and_the_others_noticed_nothing() -> None:
    assert judged(["a", "a", Refused("full")], "a") == []
    assert judged(["a", "a", "a"], "a") == ["0 of 3 were refused"]
    assert judged(["a", Refused("full"), Refused("full")], "a") == ["2 of 3 were refused"]
    assert judged(["a", "b", Refused("full")], "a") == ["one was told 'b', alone 'a'"]
    assert judged(["a", Broken("cut"), Refused("full")], "a") == ["cut"]
