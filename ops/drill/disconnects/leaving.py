"""One round: a client that goes away at a moment and in a manner that were drawn for it."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from ops.drill.disconnects.asking import sentence_of
from ops.drill.disconnects.client import Client, Manner, frames_of, head_of
from ops.drill.disconnects.doors import Broken, Door, Post

PATIENCE_S = 300.0  # a busy machine's model answers the requests of one call one after the other
LONGEST_DELAY_S = 0.3
MOST_CHUNKS = 12
SILENCE_S = (0.2, 1.5)
CALLS_SHARE = 0.25
_SWITCHING, _OK, _UNAVAILABLE = 101, 200, 503


class Moment(StrEnum):
    CONNECTED = "connected, before a word"
    HEAD = "in the head of its request"
    BODY = "in the middle of what it sends"
    ASKED = "asked, before it read a byte"
    CHUNK = "after some of the answer"
    END = "after the whole answer"


SHARES = {
    Moment.CONNECTED: 1,
    Moment.HEAD: 2,
    Moment.BODY: 4,
    Moment.ASKED: 5,
    Moment.CHUNK: 7,
    Moment.END: 1,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """`share` of the head or the body is sent when the moment lies in it; `chunks` are read at most."""

    number: int
    door: Door
    of_call: bool
    moment: Moment
    manner: Manner
    share: float
    chunks: int
    delay_s: float
    silence_s: float

    @classmethod
    def draw(cls, seed: int, number: int, doors: Sequence[Door]) -> "Plan":
        """The same for the same seed and number. The doors take turns."""
        dice = Random(f"{seed}/{number}")  # noqa: S311 - no secret
        return cls(
            number=number,
            door=doors[number % len(doors)],
            of_call=dice.random() < CALLS_SHARE,
            moment=dice.choices(list(SHARES), list(SHARES.values()))[0],
            manner=dice.choice(list(Manner)),
            share=dice.random(),
            chunks=dice.randint(1, MOST_CHUNKS),
            delay_s=dice.uniform(0.0, LONGEST_DELAY_S) * dice.randint(0, 1),
            silence_s=dice.uniform(*SILENCE_S),
        )

    def __str__(self) -> str:
        return f"round {self.number}: {self.door.name}, {self.moment}, {self.manner}"


@dataclass(slots=True)
class Left:
    """How a round went. `status` of the answer if it was read, `wrong` if the client has something to complain of."""

    plan: Plan
    status: int | None = None
    has_asked: bool = False
    has_heard: bool = False  # some of the answer itself
    has_all: bool = False
    refused: bool = False
    wrong: str = ""

    @property
    def was_cut_off(self) -> bool:
        """The worker had an answer in the making, certainly: more of it than all buffers on its way hold."""
        closed_in_words = self.status == _SWITCHING and self.plan.manner is Manner.CLOSE
        return self.has_heard and not self.has_all and self.plan.door.is_bulky and not closed_in_words

    @property
    def may_have_been_cut_off(self) -> bool:
        return not self.refused and not self.has_all


async def go(plan: Plan, port: int, headers: Mapping[str, str]) -> Left:
    left, client = Left(plan), Client()
    try:
        async with asyncio.timeout(PATIENCE_S):
            try:
                await client.connect(port)
                await _until_the_moment(client, plan, left, head_of(plan.door, port, headers))
            except ConnectionError:
                left.wrong = "" if _status(client) else "the worker closed the connection without an answer"
            _judge(client, left)
            await asyncio.sleep(plan.delay_s)
            await client.leave(plan.manner, plan.silence_s)
    except TimeoutError:
        left.wrong = f"not over after {PATIENCE_S:g} s"
    finally:
        client.gone()
    return left


async def _until_the_moment(client: Client, plan: Plan, left: Left, head: bytes) -> None:
    door, moment = plan.door, plan.moment
    if moment is Moment.CONNECTED:
        return
    if moment is Moment.HEAD:
        await client.send(_part(head, plan.share))
        return
    await client.send(head)
    if isinstance(door, Post):
        await client.send(_part(door.body, plan.share) if moment is Moment.BODY else door.body)
        left.has_asked = moment is not Moment.BODY
    elif moment is not Moment.ASKED:
        while b"\r\n\r\n" not in client.head and await client.receive():
            pass
        if _status(client) != _SWITCHING:
            return
        said = b"".join(frames_of(door))
        await client.send(_part(said, plan.share) if moment is Moment.BODY else said)
        left.has_asked = True
    if moment is Moment.CHUNK:
        for _ in range(plan.chunks):
            if not await client.receive() or _is_whole(client, door):
                break
    if moment is Moment.END:
        while not _is_whole(client, door) and await client.receive():
            pass


def _part(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def _status(client: Client) -> int | None:
    found = re.match(rb"HTTP/1\.1 (\d{3}) ", client.head)
    return int(found[1]) if found else None


def _is_whole(client: Client, door: Door) -> bool:
    if not isinstance(door, Post):
        return door.end.encode() in client.tail
    head, _, body = client.head.partition(b"\r\n\r\n")
    if length := re.search(rb"(?i)\r\ncontent-length: (\d+)", head):
        return client.received_bytes - len(head) - 4 == int(length[1])
    return bool(body) and client.tail.endswith(b"0\r\n\r\n")


def _judge(client: Client, left: Left) -> None:
    door = left.plan.door
    left.status = _status(client)
    head, _, body = client.head.partition(b"\r\n\r\n")
    if left.status == _UNAVAILABLE:
        left.refused = True
        left.wrong = left.wrong or _unclean(head, body)
    elif b"backend_busy" in client.head:
        left.refused = True
    elif left.status in (_OK, _SWITCHING):
        left.has_heard = left.has_asked and bool(body)
        left.has_all = _is_whole(client, door)
        if left.plan.moment is Moment.END and not left.has_all:
            left.wrong = left.wrong or f"the answer ended early, with {client.tail[-200:]!r}"
        if b'"type":"error"' in client.tail or b'"error":' in client.tail or b"_error" in client.tail:
            left.wrong = left.wrong or f"it was told of a failure: {client.tail[-300:]!r}"
    elif left.status is not None:
        left.wrong = left.wrong or f"it was answered {client.head[:300]!r}"
    elif left.plan.moment is Moment.END:
        left.wrong = left.wrong or "there was no answer"


def _unclean(head: bytes, body: bytes) -> str:
    headers = dict(re.findall(r"(?m)^([\w-]+): (.*?)\r?$", head.decode("latin-1")))
    try:
        sentence_of(headers, body)
    except (Broken, json.JSONDecodeError, LookupError, TypeError) as error:
        return f"an unclean refusal: {error}"
    return ""
