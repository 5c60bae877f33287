"""The fleet's Redis, wherever its URL says it is: at an address, or where sentinels say that its primary is.

redis://  rediss://  unix://                                       as redis-py reads them
sentinel://:password@host1:26379/0;sentinel://host2:26379?master=notify
                                        user, password and database are the primary's; `master` is its name
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from notify_tasks.errors import NotConfigured

if TYPE_CHECKING:
    import redis

SENTINEL: Final = "sentinel://"
SENTINEL_PORT: Final = 26379
EXAMPLE: Final = "sentinel://:password@host1:26379/0;sentinel://host2:26379?master=notify"


@dataclass(frozen=True, slots=True)
class Sentinels:
    """What a `sentinel://` URL says.

    Args:
        hosts: the sentinels.
        master: the primary's name.
        options: of the connection to the primary: database, user, password.
        kombu: the URL as kombu reads it, to which `master` is an option.
    """

    hosts: tuple[tuple[str, int], ...]
    master: str
    options: dict[str, Any] = field(repr=False)
    kombu: str = field(repr=False)


def sentinels(url: str) -> Sentinels | None:
    """Read a URL that names sentinels; None for another one.

    Raises:
        NotConfigured: it cannot be read.
    """
    if not url.startswith(SENTINEL):
        return None
    hosts: list[tuple[str, int]] = []
    options: dict[str, Any] = {}
    names: list[str] = []
    try:
        places = [urlsplit(place) for place in url.split(";")]
        for parts in places:
            if parts.scheme != "sentinel" or not parts.hostname:
                raise ValueError("no sentinel")  # noqa: TRY301 - one way out for what cannot be read
            hosts.append((parts.hostname, parts.port or SENTINEL_PORT))
            said = {"username": parts.username, "password": parts.password}
            options |= {name: unquote(value) for name, value in said.items() if value}
            if parts.path.strip("/"):
                options["db"] = int(parts.path.strip("/"))
            names += parse_qs(parts.query).get("master", [])
        if len(set(names)) != 1:
            raise ValueError("no master")  # noqa: TRY301 - as above
    except ValueError:
        raise NotConfigured(f"broker_url: it cannot be read. Write sentinels as in {EXAMPLE}") from None
    return Sentinels(
        tuple(hosts), names[0], options, ";".join(parts._replace(query="").geturl() for parts in places)
    )


def client(url: str, *, seconds: float, connect: float | None = None, **options: Any) -> redis.Redis:
    """A client of the fleet's Redis. It connects with its first command, and finds a new primary when it reconnects.

    Args:
        url: as the module says.
        seconds: for each answer.
        connect: seconds for connecting; by default as many.
        options: of redis-py.

    Raises:
        NotConfigured, ValueError: the URL cannot be read.
    """
    times = {"socket_timeout": seconds, "socket_connect_timeout": seconds if connect is None else connect}
    asked = sentinels(url)
    if asked is not None:
        return _guided(asked, times, options)
    import redis  # noqa: PLC0415 - a producer with durable intake has no use for it

    return redis.Redis.from_url(plain(url), **times, **options)


def _guided(asked: Sentinels, times: dict[str, float], options: dict[str, Any]) -> redis.Redis:
    from redis.sentinel import Sentinel  # noqa: PLC0415 - as in `client`

    guide = Sentinel(list(asked.hosts), sentinel_kwargs=times, **times, **asked.options, **options)  # type: ignore[no-untyped-call]
    found: redis.Redis = guide.master_for(asked.master)  # type: ignore[no-untyped-call]
    return found


def primary(asked: Sentinels, seconds: float) -> tuple[str, int]:
    """Host and port of the primary, as one of the sentinels says now.

    Args:
        asked: whom to ask.
        seconds: for each of them.

    Raises:
        redis.ConnectionError: none of them knows one.
    """
    from redis.sentinel import Sentinel  # noqa: PLC0415 - as in `client`

    times = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    guide = Sentinel(list(asked.hosts), sentinel_kwargs=times)  # type: ignore[no-untyped-call]
    try:
        host, port = guide.discover_master(asked.master)  # type: ignore[no-untyped-call]
    finally:
        for each in guide.sentinels:
            each.close()
    return str(host), int(port)


def plain(url: str) -> str:
    """The path of a socket as kombu writes it, in the way of redis-py."""
    return url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=", 1)
