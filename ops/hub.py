"""A model hub's own words: what a repository holds, under which licence, with which checksums."""

import asyncio
from typing import Any
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, Field, ValidationError

from daemons.errors import ConfigurationError, Unavailable, in_words
from daemons.models import HubPlace
from daemons.settings import Settings
from ops.download import session


class LargeFile(BaseModel):
    sha256: str


class HubFile(BaseModel):
    name: str = Field(alias="rfilename")
    size_bytes: int = Field(alias="size")
    git_blob: str = Field(alias="blobId")
    lfs: LargeFile | None = None


class Listing(BaseModel):
    """One commit of a repository."""

    commit: str = Field(alias="sha")
    files: list[HubFile] = Field(alias="siblings")
    card: dict[str, Any] | None = Field(None, alias="cardData")
    task: str | None = Field(None, alias="pipeline_tag")

    @property
    def licence(self) -> str:
        said = (self.card or {}).get("license_name") or (self.card or {}).get("license")
        return str(said) if said else "not told: look at its page on the hub"


def file_url(settings: Settings, repository: str, revision: str, path: str) -> str:
    return f"{settings.hub_url.rstrip('/')}/{repository}/resolve/{quote(revision, safe='')}/{quote(path)}"


def listing(settings: Settings, place: HubPlace) -> Listing:
    """What the place's repository holds. Raises Unavailable, or ConfigurationError where asking again is no use."""
    if settings.hub_offline:
        raise Unavailable(f"hf:{place.repository}: the hub is left out (HF_HUB_OFFLINE)")
    return asyncio.run(_listing(settings, place))


async def _listing(settings: Settings, place: HubPlace) -> Listing:
    address = settings.hub_url.rstrip("/")
    url = f"{address}/api/models/{place.repository}/revision/{quote(place.revision, safe='')}?blobs=true"
    try:
        async with session(settings.hub_token.get_secret_value()) as http, http.get(url) as response:
            if response.status in (401, 403, 404):
                raise ConfigurationError(refusal(settings, place, response.status))
            response.raise_for_status()
            return Listing.model_validate(await response.json(content_type=None))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(
            f"the hub {address} does not answer ({in_words(error)}): "
            "is this machine online? CALLBOX_HUB_URL names a mirror"
        ) from error
    except (ValueError, ValidationError) as error:
        raise Unavailable(f"{url} is no listing of a repository; CALLBOX_HUB_URL must name a hub") from error


def refusal(settings: Settings, place: HubPlace, status: int) -> str:
    """What to do about an answer that is 401, 403 or 404."""
    named = f"{place.repository} (revision {place.revision})" if place.revision != "main" else place.repository
    if status == 404:
        return f"the hub has no {named}"
    if status == 401 and not settings.hub_token.get_secret_value():
        return f"the hub has no {named} that is open to everyone; HF_TOKEN may name a token that is let in"
    return f"the hub does not let this box read {named} (status {status}): accept its terms there, and check HF_TOKEN"
