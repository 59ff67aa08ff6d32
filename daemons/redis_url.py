"""The addresses under which the registry's Redis may be given."""

from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

DIRECT = ("redis", "rediss", "unix")
SENTINEL = "redis+sentinel"
WANTED = (
    "redis://HOST:PORT/DB, rediss://…, unix://PATH or redis+sentinel://HOST:PORT[,HOST:PORT…]/SERVICE[/DB] is wanted"
)


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Who knows which server is the master of `service` at the moment. User and password are the master's."""

    addresses: tuple[tuple[str, int], ...]
    service: str
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def parse(url: str) -> Sentinels | None:
    """None for the address of one server, which redis-py itself reads. Raises ValueError, which says what is wanted."""
    scheme, _, rest = url.partition("://")
    if scheme in DIRECT:
        parts = urlsplit(url)
        if parts.port == 0:  # .port raises for what is no port at all
            raise ValueError(WANTED)
        return None
    if scheme != SENTINEL:
        raise ValueError(WANTED)
    # Not by urlsplit: some of its versions take no list of hosts with brackets
    netloc, _, path = rest.partition("/")
    login, _, hosts = netloc.rpartition("@")
    username, _, password = login.partition(":")
    service, _, db = path.strip("/").partition("/")
    if not service or not (db or "0").isdecimal() or "?" in rest or "#" in rest:
        raise ValueError(f"{SENTINEL}://HOST:PORT[,HOST:PORT…]/SERVICE[/DB] is wanted")
    addresses = tuple(_address(host) for host in hosts.split(","))
    return Sentinels(addresses, unquote(service), int(db or 0), unquote(username) or None, unquote(password) or None)


def _address(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or not parts.port:
        raise ValueError(f"each Sentinel is given as HOST:PORT, not as {text!r}")
    return parts.hostname, parts.port
