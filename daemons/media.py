"""The LiveKit server, as its clients' host sees it: rooms, and tokens to join them."""

import datetime

import aiohttp
from livekit import api
from livekit.api.room_service import RoomService

from daemons.errors import Unavailable
from daemons.settings import Settings

TOKEN_TTL_S = 600  # livekit-server renews it for who is inside
API_TIMEOUT_S = 5.0
EMPTY_TIMEOUT_S = 60


def join_token(settings: Settings, room: str, identity: str, *, agent: bool = False) -> str:
    """A token for one room and one identity; a caller's may publish a microphone and data, nothing else."""
    grants = api.VideoGrants(
        room_join=True,
        room=room,
        can_publish_sources=["microphone"],
        can_update_own_metadata=agent,  # the agent's state is an attribute of its own
    )
    return (
        api.AccessToken(settings.livekit_api_key, settings.livekit_api_secret.get_secret_value())
        .with_identity(identity)
        .with_kind("agent" if agent else "standard")
        .with_grants(grants)
        .with_ttl(datetime.timedelta(seconds=TOKEN_TTL_S))
        .to_jwt()
    )


class Rooms:
    """Create, find and delete rooms. Every method raises Unavailable when the LiveKit server does not answer."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.livekit_url.replace("ws", "http", 1)
        self._key = settings.livekit_api_key
        self._secret = settings.livekit_api_secret.get_secret_value()
        self._api: api.LiveKitAPI | None = None

    async def create(self, room: str) -> None:
        request = api.CreateRoomRequest(name=room, empty_timeout=EMPTY_TIMEOUT_S, departure_timeout=EMPTY_TIMEOUT_S)
        try:
            await self._rooms().create_room(request)
        except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the media server made no room: {error or type(error).__name__}") from error

    async def has(self, room: str, identity: str) -> bool:
        """Whether the room is there with this participant in it (the counts of ListRooms lag by seconds)."""
        try:
            found = await self._rooms().list_participants(api.ListParticipantsRequest(room=room))
        except api.TwirpError as error:
            if error.code == api.TwirpErrorCode.NOT_FOUND:
                return False
            raise Unavailable(f"the media server does not say who is in {room}: {error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the media server does not answer: {error or type(error).__name__}") from error
        return any(person.identity == identity for person in found.participants)

    async def delete(self, room: str) -> None:
        """Idempotent: a room that is gone already is no error."""
        try:
            await self._rooms().delete_room(api.DeleteRoomRequest(room=room))
        except api.TwirpError as error:
            if error.code != api.TwirpErrorCode.NOT_FOUND:
                raise Unavailable(f"the media server did not delete {room}: {error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable(f"the media server did not delete {room}: {error or type(error).__name__}") from error

    async def close(self) -> None:
        if self._api is not None:
            await self._api.aclose()

    def _rooms(self) -> RoomService:
        if self._api is None:  # wants a running loop
            timeout = aiohttp.ClientTimeout(total=API_TIMEOUT_S)
            self._api = api.LiveKitAPI(self._url, self._key, self._secret, timeout=timeout, failover=False)
        return self._api.room
