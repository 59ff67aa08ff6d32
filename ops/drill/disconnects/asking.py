"""A client that behaves: it asks, and takes the whole answer or a clean refusal."""

import json
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp
from aiohttp import WSCloseCode, WSMsgType

from ops.drill.disconnects.doors import Broken, Door, Post, Said, Socket

ANSWER_S = 120.0


class Refused(Exception):
    """A clean refusal: a status or a close code that tells to come again, and a sentence."""


def session() -> aiohttp.ClientSession:
    """Whose connections end with their requests, so that each one open at a worker is somebody's."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(ANSWER_S))


async def ask(http: aiohttp.ClientSession, url: str, door: Door) -> str:
    """The gist of the whole answer. Raises Refused or Broken."""
    try:
        return await (_post(http, url, door) if isinstance(door, Post) else _talk(http, url, door))
    except (aiohttp.ClientError, TimeoutError, ValueError, LookupError) as error:
        raise Broken(f"{type(error).__name__}: {error}") from error


async def _post(http: aiohttp.ClientSession, url: str, door: Post) -> str:
    headers = {"Content-Type": door.content_type}
    async with http.post(f"{url}{door.path}", data=door.body, headers=headers) as answer:
        body = await answer.read()
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise Refused(sentence_of(answer.headers, body))
    if answer.status != HTTPStatus.OK:
        raise Broken(f"{answer.status}: {body[:200]!r}")
    return door.gist(body)


async def _talk(http: aiohttp.ClientSession, url: str, door: Socket) -> str:
    said: list[Said] = []
    try:
        async with http.ws_connect(f"{url}{door.path}", max_msg_size=0) as socket:
            for own in door.messages:
                await (socket.send_str(own) if isinstance(own, str) else socket.send_bytes(own))
            async for message in socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    said.append(message.data)
                if message.type is WSMsgType.TEXT and door.end in message.data:
                    return door.gist(said)
            if socket.close_code == WSCloseCode.TRY_AGAIN_LATER and said and "backend_busy" in said[-1]:
                raise Refused(json.loads(said[-1])["data"]["message"])
            raise Broken(f"closed with {socket.close_code} after {said[-1:]!r:.200}")
    except aiohttp.WSServerHandshakeError as error:
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE and error.headers is not None:
            raise Refused(sentence_of(error.headers, None)) from error
        raise


def sentence_of(headers: Mapping[str, str], body: bytes | None) -> str:
    """What a refusal by 503 says; None for a body that the client was not shown. Raises Broken when it is not clean."""
    after = headers.get("Retry-After", "")
    if not after.isdecimal():
        raise Broken(f"a refusal without Retry-After: {dict(headers)}")
    if body is None:
        return f"503, Retry-After {after}"
    sentence: object = json.loads(body)["error"]["message"]
    if not isinstance(sentence, str) or " " not in sentence:
        raise Broken(f"a refusal without a sentence: {body[:200]!r}")
    return sentence
