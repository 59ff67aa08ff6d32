"""An OpenAI-compatible server that an engine stands on: reaching it, waiting for it, and what it refuses in words."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable

import aiohttp

from daemons.errors import AtCapacity, ConfigurationError, Unavailable, in_words

log = logging.getLogger(__name__)

LOAD_AGAIN_S = 2.0
SAY_AGAIN_S = 60.0
KEEP_ALIVE_S = 4.0  # uvicorn's servers cut idle connections after 5
LINE_BYTES = 2**20  # the longest line of a stream
BODY_BYTES = 2**20  # of an answer that is no stream

TRANSPORT = (aiohttp.ClientError, ConnectionError, TimeoutError)  # what says that it cannot be reached


class Connection:
    """Holds the connections to `url`; `settings` names the variables that say where it is, without their last word."""

    def __init__(self, url: str, *, api_key: str, settings: str, connect_s: float, check_s: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"{settings}_URL: an address is wanted, as in http://127.0.0.1:8000/v1")
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._settings = settings
        self._connect_s = connect_s
        self._check_s = check_s
        self._http: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._http is None:
            raise Unavailable("the engine is not loaded")
        return self._http

    async def load(self, warm_up: Callable[[str], Awaitable[object]]) -> None:
        """Wait until `warm_up`, given the first model that is listed, succeeds; the runtime bounds that.

        Only Unavailable and AtCapacity may pass with time; what else `warm_up` raises is raised here.
        """
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s),
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=LINE_BYTES,
        )
        said_at_s = -SAY_AGAIN_S
        while True:
            try:
                await warm_up(await self.first_model())
                return
            except (Unavailable, AtCapacity) as error:
                if time.monotonic() - said_at_s >= SAY_AGAIN_S:
                    log.warning("waiting for the upstream: %s", error)
                    said_at_s = time.monotonic()
            await asyncio.sleep(LOAD_AGAIN_S)

    async def first_model(self) -> str:
        """The first model that it lists. Raises Unavailable, or ConfigurationError when it never will."""
        try:
            async with asyncio.timeout(self._check_s), self.session.get(f"{self.url}/models") as response:
                if response.status in (401, 403, 404):
                    raise ConfigurationError(
                        f"{self.url}/models answers {response.status}: check {self._settings}_URL, "
                        f"which often ends in /v1, and {self._settings}_API_KEY"
                    )
                listed = json.loads(await read_body(response)) if response.status == 200 else {}
                return str(listed["data"][0]["id"])
        except TRANSPORT as error:
            raise Unavailable(f"{self.url} does not answer: {in_words(error)}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise Unavailable(f"{self.url}/models lists no model (status {response.status})") from error

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """All of it, or its first BODY_BYTES and a little."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > BODY_BYTES:
            break
    return bytes(body)
