"""The LiveKit server, as its clients' host sees it: rooms, tokens to join them, and joining."""

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiohttp
from livekit import api
from livekit.api.room_service import RoomService
from livekit.protocol.models import DisconnectReason

from daemons import wire
from daemons.errors import Unavailable
from daemons.settings import Settings

if TYPE_CHECKING:
    from livekit import rtc  # a native library, and no affair of who only makes tokens

TOKEN_TTL_S = 600  # livekit-server renews it for who is inside
API_TIMEOUT_S = 5.0
EMPTY_TIMEOUT_S = 60
LEAVE_S = 5.0

# Somebody wants it so. Whatever else ends a connection may be mended by joining again.
LEFT_FOR_GOOD: frozenset[int] = frozenset(
    (
        DisconnectReason.CLIENT_INITIATED,
        DisconnectReason.DUPLICATE_IDENTITY,
        DisconnectReason.PARTICIPANT_REMOVED,
        DisconnectReason.ROOM_DELETED,
        DisconnectReason.ROOM_CLOSED,
    )
)


def join_token(
    settings: Settings, room: str, identity: str, *, agent: bool = False, camera: bool = False, recorded: bool = False
) -> str:
    """A token for one room and one identity; it may publish a microphone, data and, when asked, a camera."""
    grants = api.VideoGrants(
        room_join=True,
        room=room,
        can_publish_sources=["microphone", "camera"] if camera else ["microphone"],
        can_update_own_metadata=agent,  # the agent's state is an attribute of its own
    )
    return (
        api.AccessToken(settings.livekit_api_key, settings.livekit_api_secret.get_secret_value())
        .with_identity(identity)
        .with_kind("agent" if agent else "standard")
        .with_attributes({wire.RECORDED: "true"} if recorded else {})
        .with_grants(grants)
        .with_ttl(datetime.timedelta(seconds=TOKEN_TTL_S))
        .to_jwt()
    )


_leaving: set[asyncio.Task[None]] = set()


async def join_room(room: "rtc.Room", url: str, token: str, options: "rtc.RoomOptions") -> None:
    """As `room.connect`. Who is cancelled here leaves the room, as soon as it is entered.

    To cancel LiveKit's own would end the whole process: its library does so 15 s after nobody took what it connected.
    At a server that hangs it tries for up to a minute, whatever its time-out; so long nobody waits for it here.
    """
    connecting = asyncio.create_task(room.connect(url, token, options))
    try:
        await asyncio.shield(connecting)
    except asyncio.CancelledError:
        leaving = asyncio.create_task(_leave_once_entered(room, connecting))
        _leaving.add(leaving)
        leaving.add_done_callback(_leaving.discard)
        await asyncio.wait({leaving}, timeout=LEAVE_S)
        raise


async def leave_room(room: "rtc.Room") -> None:
    """As `room.disconnect`, but for LEAVE_S at most."""
    with suppress(TimeoutError):
        await asyncio.wait_for(room.disconnect(), LEAVE_S)


async def _leave_once_entered(room: "rtc.Room", connecting: asyncio.Task[None]) -> None:
    await asyncio.wait({connecting})
    await leave_room(room)


class Rooms:
    """Create, find and delete rooms. Every method raises Unavailable when the LiveKit server does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.livekit_url.replace("ws", "http", 1)
        self._key = settings.livekit_api_key
        self._secret = settings.livekit_api_secret.get_secret_value()
        self._api: api.LiveKitAPI | None = None

    async def create(self, room: str) -> None:
        request = api.CreateRoomRequest(name=room, empty_timeout=EMPTY_TIMEOUT_S, departure_timeout=EMPTY_TIMEOUT_S)
        async with self._asked("made no room") as rooms:
            await rooms.create_room(request)

    async def has(self, room: str, identity: str) -> bool:
        """Whether the room is there with this participant in it (the counts of ListRooms lag by seconds)."""
        async with self._asked(f"does not say who is in {room}") as rooms:
            try:
                found = await rooms.list_participants(api.ListParticipantsRequest(room=room))
            except api.TwirpError as error:
                if error.code == api.TwirpErrorCode.NOT_FOUND:
                    return False
                raise
        return any(person.identity == identity for person in found.participants)

    async def delete(self, room: str) -> None:
        """Idempotent: a room that is gone already is no error."""
        async with self._asked(f"did not delete {room}") as rooms:
            try:
                await rooms.delete_room(api.DeleteRoomRequest(room=room))
            except api.TwirpError as error:
                if error.code != api.TwirpErrorCode.NOT_FOUND:
                    raise

    async def close(self) -> None:
        if self._api is not None:
            await self._api.aclose()

    @asynccontextmanager
    async def _asked(self, failure: str) -> AsyncIterator[RoomService]:
        if self._api is None:  # wants a running loop
            self._api = api.LiveKitAPI(self._url, self._key, self._secret, failover=False)
        try:
            async with asyncio.timeout(API_TIMEOUT_S):  # the client's own time-out does not reach its requests
                yield self._api.room
        except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
            why = str(error) or f"no answer within {API_TIMEOUT_S:g} s"
            raise Unavailable(f"the media server {failure}: {why}") from error
