"""A Redis that Sentinels watch over: each new connection goes to the server that is the master at that moment.

After a fail-over the connections to the old master break, or it refuses to write; their users are told Unavailable and
ask again, as with any Redis that is away for a while.
"""

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from daemons.redis_url import Sentinels


def master(sentinels: Sentinels, **options: Any) -> "Redis":
    """A client of whoever is the master; `options` are those of a connection, to it and to the Sentinels alike."""
    watching = _Sentinel(sentinels.addresses, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
    client: Redis = watching.master_for(
        sentinels.service,
        connection_pool_class=_Pool,
        db=sentinels.db,
        username=sentinels.username,
        password=sentinels.password,
        **options,
    )
    return client


class _Sentinel(Sentinel):
    async def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            address: tuple[str, int] = await super().discover_master(service_name)
        except MasterNotFoundError as error:
            known = [sentinel.connection_pool.connection_kwargs for sentinel in self.sentinels]
            names = ", ".join(f"{each['host']}:{each['port']}" for each in known)
            raise MasterNotFoundError(f"no Sentinel at {names} knows a living master {service_name!r}") from error
        return address


class _Pool(SentinelConnectionPool):
    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()
