"""What waits behind a closed gate: brought forward when the gate opens. And what processes say of their providers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from notify_tasks.store.database import Database, storable
from notify_tasks.store.sweeps import Wake

NOT_READY: Final = "no_provider_ready"
"""The reason of what waits until a provider of its pool can be called."""
PAUSED: Final = "paused: "
"""Begins the reason of what waits because somebody has paused its queue, type or tenant."""

# --- what waits -------------------------------------------------------------------------------------

# What may have been sent goes to its own provider alone, and a sandboxed call to its pool's sandbox.
_RELEASE: Final = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.delivery d
     WHERE d.state = 'held' AND d.reason = 'no_provider_ready' AND d.channel = %(channel)s
       AND CASE WHEN d.unknown > 0 THEN d.provider = ANY(%(names)s)
                WHEN d.sandbox THEN %(sandbox)s ELSE %(pool)s END
     ORDER BY (d.lane = 'high') DESC, d.due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE notify.delivery d
   SET state = 'queued', due_at = NULL, not_before = NULL,
       marker = notify.marker_now(notify.queue_for(d.channel, d.lane)), updated_at = now()
 WHERE d.id = ANY(ARRAY(SELECT id FROM c))
RETURNING d.id, d.channel, d.lane, d.message_id, d.event_type
"""


@dataclass(frozen=True, slots=True)
class Ready:
    """What of a channel can be called now.

    Args:
        names: the providers.
        pool: whether one of them takes its ordinary calls.
        sandbox: whether one of them takes its sandboxed calls.
    """

    channel: str
    names: tuple[str, ...]
    pool: bool
    sandbox: bool


def release(database: Database, ready: Ready, *, limit: int) -> list[Wake]:
    """Queue what waits for a provider of a channel that can be called, the high lane first, then by due time."""
    parameters = {
        "channel": ready.channel,
        "names": list(ready.names),
        "pool": ready.pool,
        "sandbox": ready.sandbox,
        "limit": limit,
    }
    return [Wake(**row) for row in database.rows(_RELEASE, parameters)]


_ROOM: Final = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.delivery d
     WHERE d.state = 'held' AND d.reason = 'provider_share_full' AND d.channel = %s
     ORDER BY (d.lane = 'high') DESC, d.due_at LIMIT %s FOR UPDATE SKIP LOCKED)
UPDATE notify.delivery d
   SET state = 'queued', due_at = NULL, not_before = NULL,
       marker = notify.marker_now(notify.queue_for(d.channel, d.lane)), updated_at = now()
 WHERE d.id = ANY(ARRAY(SELECT id FROM c))
RETURNING d.id, d.channel, d.lane, d.message_id, d.event_type
"""


def fill_room(database: Database, channel: str, *, limit: int) -> list[Wake]:
    """Queue what waits for a place among the threads that a provider may use, the high lane first."""
    return [Wake(**row) for row in database.rows(_ROOM, (channel, limit))]


_RESUME: Final = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.delivery d
     WHERE d.state = 'held' AND d.reason LIKE 'paused: %%'
       AND NOT EXISTS (SELECT 1 FROM notify.pause p
                        WHERE (p.kind = 'queue' AND p.name = notify.queue_for(d.channel, d.lane))
                           OR (p.kind = 'type' AND p.name = d.event_type)
                           OR (p.kind = 'tenant' AND p.name = d.tenant))
       AND d.channel = ANY(%s)
     ORDER BY (d.lane = 'high') DESC, d.due_at LIMIT %s FOR UPDATE SKIP LOCKED)
UPDATE notify.delivery d
   SET state = 'queued', due_at = NULL, not_before = NULL,
       marker = notify.marker_now(notify.queue_for(d.channel, d.lane)), updated_at = now()
 WHERE d.id = ANY(ARRAY(SELECT id FROM c))
RETURNING d.id, d.channel, d.lane, d.message_id, d.event_type
"""


def resume(database: Database, channels: Sequence[str], *, limit: int) -> list[Wake]:
    """Queue what was paused and is not any more, the high lane first."""
    return [Wake(**row) for row in database.rows(_RESUME, (list(channels), limit))]


_RETRY_NOW: Final = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.delivery d
     WHERE d.state = 'retrying' AND d.due_at IS NOT NULL AND d.provider = %s
       AND d.reason IN ('unavailable', 'misconfigured')
     ORDER BY (d.lane = 'high') DESC, d.due_at LIMIT %s FOR UPDATE SKIP LOCKED)
UPDATE notify.delivery d
   SET state = 'queued', due_at = NULL, not_before = NULL,
       marker = notify.marker_now(notify.queue_for(d.channel, d.lane)), updated_at = now()
 WHERE d.id = ANY(ARRAY(SELECT id FROM c))
RETURNING d.id, d.channel, d.lane, d.message_id, d.event_type
"""


def retry_now(database: Database, provider: str, *, limit: int) -> list[Wake]:
    """Queue what had found this provider down and waits to try again."""
    return [Wake(**row) for row in database.rows(_RETRY_NOW, (provider, limit))]


# The first choice of a delivery is drawn by its id as `Pools.candidates` draws it, to 32 bits.
_RETURN: Final = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.delivery d
     WHERE d.state = 'held' AND d.reason = ANY(%(reasons)s) AND d.channel = %(channel)s AND d.unknown = 0
       AND NOT d.sandbox AND d.due_at > now()
       AND ('x' || left(encode(sha256(convert_to(d.id::text, 'UTF8')), 'hex'), 8))::bit(32)::bigint / 4294967296.0
           BETWEEN %(low)s AND %(high)s
     ORDER BY d.due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE notify.delivery d
   SET state = 'queued', reason = NULL, due_at = NULL, not_before = NULL,
       marker = notify.marker_now(notify.queue_for(d.channel, d.lane)), updated_at = now()
 WHERE d.id = ANY(ARRAY(SELECT id FROM c))
RETURNING d.id, d.channel, d.lane, d.message_id, d.event_type
"""


def return_to(
    database: Database,
    channel: str,
    share: tuple[float, float],
    *,
    reasons: Sequence[str],
    limit: int,
) -> list[Wake]:
    """Queue what waits for its turn at other providers, though its first choice is one that works again.

    Args:
        database: the store.
        channel: of the deliveries.
        share: from where to where, of 0 to 1, the provider's part of its pool reaches.
        reasons: what they wait for: the other providers' rates.
        limit: rows at most.
    """
    parameters = {
        "reasons": list(reasons),
        "channel": channel,
        "low": share[0],
        "high": share[1],
        "limit": limit,
    }
    return [Wake(**row) for row in database.rows(_RETURN, parameters)]


_BACKLOG: Final = """
SELECT count(*) AS n FROM (
    SELECT 1 FROM notify.delivery WHERE state = 'queued' AND channel = %s LIMIT %s) x
"""


def backlog(database: Database, channel: str, most: int) -> int:
    """How many rows of a channel are queued, counted up to `most`."""
    n: int = database.rows(_BACKLOG, (channel, most))[0]["n"]
    return n


# --- what processes say of their providers ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A provider that a process leaves out.

    Args:
        age: seconds for which it has.
        failed: seconds since the last call that failed.
    """

    provider: str
    code: str
    misconfigured: bool
    age: float
    failed: float


@dataclass(frozen=True, slots=True)
class Said:
    """A process's last word of a provider. Times are in UTC.

    Args:
        failed: seconds since the last call that failed.
    """

    worker: str
    provider: str
    code: str
    misconfigured: bool
    since: datetime
    failed: float


_REPORT: Final = """
INSERT INTO notify.provider_report AS r (worker, provider, code, misconfigured, since, failed_at)
VALUES (%s, %s, %s, %s, now() - make_interval(secs => %s), now() - make_interval(secs => %s))
ON CONFLICT (worker, provider) DO UPDATE
   SET code = excluded.code, misconfigured = excluded.misconfigured, since = excluded.since,
       failed_at = excluded.failed_at, seen_at = now()
"""


def report(database: Database, worker: str, left_out: LeftOut) -> None:
    """Say that a process leaves a provider out."""
    it = left_out
    database.rows(
        _REPORT, (worker, it.provider, storable(it.code[:100]), it.misconfigured, it.age, it.failed)
    )


_WITHDRAW: Final = """
DELETE FROM notify.provider_report WHERE worker = %s OR seen_at < now() - interval '1 day'
"""
_WORKS: Final = "DELETE FROM notify.provider_report WHERE provider = %s"


def withdraw(database: Database, worker: str) -> None:
    """Take back what a process has said: it ends."""
    database.rows(_WITHDRAW, (worker,))


def works(database: Database, provider: str) -> None:
    """A provider works, or is configured anew: take back what every process has said of it."""
    database.rows(_WORKS, (provider,))


_SAID: Final = """
SELECT worker, provider, code, misconfigured, since,
       extract(epoch FROM now() - failed_at)::float8 AS failed
  FROM notify.provider_report
 WHERE seen_at > now() - make_interval(secs => %s) ORDER BY provider, since, worker
"""


def said(database: Database, seconds: float) -> list[Said]:
    """What was said within so many seconds."""
    return [Said(**row) for row in database.rows(_SAID, (seconds,))]


_KEY: Final = "SELECT key FROM notify.limit_key"


def limit_key(database: Database) -> str:
    """The key under which addresses are counted. It is never logged and never in Redis."""
    key: str = database.rows(_KEY)[0]["key"]
    return key
