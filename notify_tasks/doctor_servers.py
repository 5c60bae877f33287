"""What may be wrong with Redis and PostgreSQL themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import redis

from notify_tasks import redis_place
from notify_tasks.errors import NotConfigured
from notify_tasks.findings import Finding, bad, good, warning
from notify_tasks.settings import Settings
from notify_tasks.store import ailing
from notify_tasks.store.database import Database
from notify_tasks.terminal.looks import duration

REDIS_SECONDS: Final = 3
FULL: Final = 0.7
LEAST_REDIS: Final = (6, 2)
LEAST_VALKEY: Final = (7, 2)
LEAST_POSTGRES: Final = 14
CLOCK_SECONDS: Final = 2.0
"""Clocks may differ by so much."""


def redis_server(settings: Settings) -> Iterator[Finding]:
    """Redis or Valkey: whether it answers, keeps what it is given, has room, and tells the same time."""
    try:
        url = settings.need_broker_url()
    except NotConfigured as error:
        yield bad("redis", "no broker is set", str(error).partition(". ")[2])
        return
    try:
        client: Any = redis_place.client(url, seconds=REDIS_SECONDS)
        with client:
            facts = client.info()
            before = time.time()
            seconds, microseconds = client.time()
            after = time.time()
    except redis.AuthenticationError:
        yield bad("redis", "it refuses the user or the password", "Correct them in NOTIFY_BROKER_URL")
        return
    except (redis.RedisError, ValueError) as error:
        yield bad(
            "redis", f"it cannot be reached ({type(error).__name__})", "Start it, or set NOTIFY_BROKER_URL"
        )
        return
    yield from _versions(facts)
    yield from _keeping(facts)
    yield from clocks("redis", seconds + microseconds / 1e6 - (before + after) / 2, (after - before) / 2)


def _versions(facts: Mapping[str, Any]) -> Iterator[Finding]:
    valkey = "valkey_version" in facts
    name, least = ("Valkey", LEAST_VALKEY) if valkey else ("Redis", LEAST_REDIS)
    version = str(facts.get("valkey_version") or facts.get("redis_version", "?"))
    if _numbers(version) < least:
        wanted = ".".join(str(each) for each in least)
        yield bad("redis", f"{name} {version} is too old", f"Take {name} {wanted} or newer")
        return
    up = duration(float(facts.get("uptime_in_seconds", 0)))
    yield good("redis", f"{name} {version} answers, up for {up}")


def _numbers(version: str) -> tuple[int, ...]:
    """The first two; what cannot be read is taken for new enough."""
    found = tuple(int(each) for each in version.split(".")[:2] if each.isdigit())
    return found if len(found) == 2 else (999, 0)  # noqa: PLR2004 - major and minor


def _keeping(facts: Mapping[str, Any]) -> Iterator[Finding]:
    if not int(facts.get("aof_enabled", 0)):
        yield bad(
            "redis",
            "no append-only file: what it holds is lost when it restarts",
            "Set `appendonly yes`, or send with NOTIFY_INTAKE=postgres",
        )
    if facts.get("maxmemory_policy", "noeviction") != "noeviction":
        yield bad("redis", "it may evict queued messages", "Set `maxmemory-policy noeviction`")
    used, most = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    if most and used >= FULL * most:
        yield warning(
            "redis",
            f"{used / most:.0%} of its memory is used; where it is full, calls are refused",
            "See what waits with `notify top`, add workers, or raise maxmemory",
        )


def postgres_server(database: Database) -> Iterator[Finding]:
    """PostgreSQL: whether it is new enough, and tells the same time."""
    found = ailing.server(database)
    if found.number < LEAST_POSTGRES * 10_000:
        yield bad("postgres", f"PostgreSQL {found.version} is too old", f"Take {LEAST_POSTGRES} or newer")
    else:
        yield good("postgres", f"PostgreSQL {found.version} answers")
    yield from clocks("postgres", found.ahead, found.within)


def clocks(about: str, ahead: float, within: float) -> Iterator[Finding]:
    """A clock that differs from this machine's.

    Args:
        about: whose.
        ahead: seconds by which it is ahead.
        within: how far off that may be.
    """
    if abs(ahead) - within > CLOCK_SECONDS:
        way = "ahead of" if ahead > 0 else "behind"
        yield warning(
            about,
            f"its clock is {duration(abs(ahead))} {way} this machine's",
            "Let both follow the same time servers (chrony, systemd-timesyncd): times in logs and quiet hours differ",
        )
