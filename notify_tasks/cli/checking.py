"""`notify doctor`: what may be wrong with an installation, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from notify_tasks import settings
from notify_tasks.errors import NotConfigured, NotifyError
from notify_tasks.store import parking, sweeps
from notify_tasks.store.database import Database, DatabaseError
from notify_tasks.store.migrate import check

SILENT_SECONDS: Final = 60.0
SWEEP_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    good: bool
    text: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything, the broker first; nothing that is wrong stops the rest."""
    current = settings.get()
    yield from _broker(current)
    yield from _database(current)
    yield from _configuration(current)


def _broker(current: settings.Settings) -> Iterator[Finding]:
    try:
        client = redis.Redis.from_url(current.need_broker_url(), socket_timeout=3, socket_connect_timeout=3)
        facts: Any = client.info()
        policy: Any = client.config_get("maxmemory-policy")
        client.close()
    except NotConfigured as error:
        yield Finding(False, "no broker", str(error))
        return
    except redis.RedisError as error:
        yield Finding(False, f"Redis cannot be reached ({type(error).__name__})", "Start it, or set NOTIFY_BROKER_URL")
        return
    yield Finding(True, "Redis answers")
    aof = bool(int(facts.get("aof_enabled", 0)))
    yield Finding(aof, "Redis keeps an append-only file" if aof else "Redis has no append-only file",
                  "" if aof else "Set `appendonly yes`: what Redis forgets before intake is lost")  # fmt: skip
    kept = policy.get("maxmemory-policy", "noeviction") == "noeviction"
    yield Finding(kept, "Redis evicts nothing" if kept else "Redis may evict queued messages",
                  "" if kept else "Set `maxmemory-policy noeviction`")  # fmt: skip


def _database(current: settings.Settings) -> Iterator[Finding]:
    try:
        check(current.need_database_url())
    except (NotifyError, DatabaseError) as error:
        yield Finding(False, "the database cannot be used", str(error))
        return
    yield Finding(True, "PostgreSQL answers, with this version's schema")
    database = Database(current.need_database_url(), connections=1, name="notify-doctor")
    try:
        age = sweeps.last_age(database)
        swept = age is not None and age < SWEEP_SECONDS
        yield Finding(swept, f"last sweep {age:.0f} s ago" if age is not None else "nothing has swept yet",
                      "" if swept else "Start a worker (each one sweeps when nobody does) and a beat")  # fmt: skip
        for queue, seconds in sorted(sweeps.silent_queues(database).items()):
            if seconds > SILENT_SECONDS:
                yield Finding(False, f"{queue}: no marker has come back for {seconds:.0f} s",
                              f"Nobody consumes it, or it is behind: celery -A notify_tasks worker -Q {queue}")  # fmt: skip
        parked = [row for row in parking.parked(database) if row.replayed_at is None]
        if parked:
            yield Finding(False, f"{len(parked)} messages are parked", "See `notify parked`")
        for name, value in sweeps.counters(database).items():
            yield Finding(True, f"{name} {value} so far")
    except DatabaseError as error:
        yield Finding(False, "the database went away meanwhile", str(error))
    finally:
        database.close()


def _configuration(current: settings.Settings) -> Iterator[Finding]:
    from channels.contract import Misconfigured  # noqa: PLC0415 - a producer's machine has neither
    from notify_tasks import templates_check  # noqa: PLC0415
    from notify_tasks.providers import Pools  # noqa: PLC0415
    from notify_tasks.routing import CHANNELS  # noqa: PLC0415

    try:
        pools = Pools.read(Path(current.config_file))
    except NotConfigured as error:
        yield Finding(False, "the provider configuration cannot be used", str(error))
    else:
        for configured in pools.of_channels(CHANNELS):
            if configured.use.startswith("inapp."):
                continue  # its inbox is handed in by a worker
            try:
                configured.provider()
            except Misconfigured as error:
                yield Finding(False, f"provider {configured.name} cannot work", error.detail)
            else:
                yield Finding(True, f"provider {configured.name} ({configured.use})")
    try:
        problems = templates_check.check(Path(current.templates))
    except NotConfigured as error:
        yield Finding(False, "no templates", str(error))
        return
    yield Finding(not problems, f"templates: {len(problems) or 'no'} problems",
                  "See `notify templates check`" if problems else "")  # fmt: skip
