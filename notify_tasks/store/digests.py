"""Digests: what is gathered and when it is due, and the flush that makes a call of each one that is.

A digest's call, its end, and the ends of the deliveries in it are one commit. Whatever ends a flush before that leaves
a digest that is still due; nothing that happens after it can take the call back. What joins meanwhile waits for that
commit, and opens the next one.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from notify_tasks.gathering import SOURCE
from notify_tasks.store.database import Connection, Database, Row

ORIGIN: Final = "digest"
BATCH_BYTES: Final = 32 * 1024 * 1024
"""Of payloads that one flush puts together, unless a single digest has more."""
KEPT_DAYS: Final = 30
"""As long as message ids are remembered."""
PRUNED: Final = 1000


@dataclass(frozen=True, slots=True)
class Flushed:
    """What one flush did.

    Args:
        digests: that were due; fewer than asked for where there are no more.
        calls: those of them that were not empty.
        events: what is in them.
        full: there may be more that are due now.
    """

    digests: int = 0
    calls: int = 0
    events: int = 0
    full: bool = False


@dataclass(frozen=True, slots=True)
class OpenDigest:
    """What is gathered for somebody. `type` is the digest's own, `group` the value that it is gathered by.

    Args:
        when: in the words of a call's `digest`.
        full: it takes nothing more, and is due.
        count: events that wait in it now.
    """

    id: uuid.UUID
    type: str
    channel: str
    group: Any
    when: str
    opened_at: datetime
    due_at: datetime
    full: bool
    count: int


@dataclass(frozen=True, slots=True)
class Use:
    """How far a throttle is used up, as of now.

    Args:
        limit: in a window of `seconds`.
        used: places that are given away in the present window, `limit` at most.
        next_at: when the next one would have a place; now, where there is one.
    """

    key: str
    limit: int
    seconds: float
    used: int
    next_at: datetime


# --- flushed ------------------------------------------------------------------------------------------

_DUE: Final = """
WITH c AS MATERIALIZED (
    SELECT id, due_at, bytes FROM notify.digest
     WHERE state <> 'closed' AND due_at <= coalesce(%(now)s::timestamptz, now())
     ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
SELECT x.id, x.found FROM (
    SELECT c.id, count(*) OVER () AS found,
           sum(c.bytes) OVER (ORDER BY c.due_at, c.id) - c.bytes AS before FROM c) x
 WHERE x.before < %(bytes)s
"""

# A statement of its own: it sees what those had stored that the lock was waited for. An event is one, though it waits
# for several devices of one person. What the person has switched off since ends here, as it would at a claim; what has
# expired is the sweep's.
_FLUSH: Final = """
WITH member AS MATERIALIZED (
    SELECT d.id, d.digest_id, d.notification_id, d.tenant, d.message_id, d.event_type, d.recipient_id, d.channel,
           d.address, d.locale, d.timezone,
           d.category IS NOT NULL AND coalesce((
               SELECT NOT notify.wanted(p.settings, d.category, d.channel, d.opt_in) FROM notify.preference p
                WHERE p.tenant = d.tenant AND p.recipient_id = d.recipient_id), d.opt_in) AS unwanted
      FROM notify.delivery d
     WHERE d.digest_id = ANY(%(ids)s) AND d.digest_id IS NOT NULL AND d.state = 'held' AND d.address <> ''
       AND (d.expires_at IS NULL OR d.expires_at > now())
     ORDER BY d.id FOR UPDATE OF d),
event AS MATERIALIZED (
    SELECT DISTINCT ON (m.digest_id, m.notification_id) m.digest_id, m.address, m.locale, m.timezone,
           n.id, n.message_id, n.event_type, n.occurred_at, n.payload
      FROM member m JOIN notify.notification n ON n.id = m.notification_id
     WHERE NOT m.unwanted
     ORDER BY m.digest_id, m.notification_id, m.id),
gathered AS MATERIALIZED (
    SELECT e.digest_id, count(*) AS n, min(e.occurred_at) AS since, max(e.occurred_at) AS until,
           (array_agg(jsonb_build_object('address', e.address, 'locale', e.locale, 'timezone', e.timezone)
                      ORDER BY e.occurred_at DESC, e.id DESC))[1] AS newest,
           jsonb_agg(jsonb_build_object('message_id', e.message_id, 'event_type', e.event_type, 'at', e.occurred_at,
                                        'payload', e.payload) ORDER BY e.occurred_at DESC, e.id DESC) AS events
      FROM event e GROUP BY e.digest_id),
call AS MATERIALIZED (
    SELECT g.id, g.tenant, 'digest-' || g.id AS message_id, x.n,
           jsonb_build_object(
               'v', 1, 'message_id', 'digest-' || g.id, 'hash', md5(g.id::text), 'event_type', g.digest_type,
               'timestamp', now(), 'tenant', g.tenant, 'source', %(source)s::text,
               'to', jsonb_build_array(jsonb_strip_nulls(
                   CASE WHEN g.recipient_id IS NOT NULL THEN jsonb_build_object('id', g.recipient_id)
                        ELSE jsonb_build_object(g.channel, x.newest ->> 'address') END
                   || jsonb_build_object('locale', x.newest ->> 'locale', 'timezone', x.newest ->> 'timezone'))),
               'channels', jsonb_build_array(g.channel),
               'payload', jsonb_build_object('count', x.n, 'since', x.since, 'until', x.until, 'events', x.events)
                   || CASE WHEN g.by_value IS NULL THEN '{}' ELSE jsonb_build_object('by', g.by_value) END)
           || CASE WHEN g.sandbox THEN '{"sandbox": true}' ELSE '{}'::jsonb END AS envelope
      FROM notify.digest g JOIN gathered x ON x.digest_id = g.id),
kept AS (
    INSERT INTO notify.intake (tenant, message_id, hash, envelope, origin)
    SELECT tenant, message_id, envelope ->> 'hash', envelope, %(origin)s FROM call
    ON CONFLICT DO NOTHING),
ended AS (
    UPDATE notify.delivery d
       SET state = CASE WHEN m.unwanted THEN 'suppressed' ELSE 'digested' END,
           reason = CASE WHEN m.unwanted THEN 'preference_off' ELSE d.reason END, updated_at = now()
      FROM member m WHERE d.id = m.id
    RETURNING d.id, d.tenant, d.notification_id, d.state, m.digest_id, m.unwanted),
told AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code, detail)
    SELECT tenant, notification_id, id, state, CASE WHEN unwanted THEN 'preference_off' END,
           CASE WHEN NOT unwanted THEN 'digest-' || digest_id END
      FROM ended),
closed AS (
    UPDATE notify.digest g
       SET state = 'closed', closed_at = now(), message_id = c.message_id, sent_events = c.n
      FROM call c WHERE g.id = c.id),
empty AS (
    DELETE FROM notify.digest g WHERE g.id = ANY(%(ids)s) AND NOT EXISTS (SELECT 1 FROM call c WHERE c.id = g.id))
SELECT count(*) AS calls, coalesce(sum(n), 0)::integer AS events FROM call
"""


def flush(database: Database, *, limit: int, now: datetime | None = None) -> Flushed:
    """Make calls of digests that are due, in three statements whatever their number; any number of flushes may run.

    Args:
        database: the store.
        limit: digests at most.
        now: the present, with a zone; the database's own unless said.
    """

    def work(connection: Connection) -> Flushed:
        asked = {"now": now, "limit": limit, "bytes": BATCH_BYTES}
        due = connection.execute(_DUE, asked).fetchall()
        if not due:
            return Flushed()
        wanted = {"ids": [row["id"] for row in due], "source": SOURCE, "origin": ORIGIN}
        done = connection.execute(_FLUSH, wanted).fetchone() or {}
        full = due[0]["found"] == limit or len(due) < due[0]["found"]
        return Flushed(len(due), done["calls"], done["events"], full)

    return database.transact(work)


_PRUNE: Final = """
WITH d AS MATERIALIZED (
    SELECT ctid FROM notify.digest WHERE state = 'closed' AND closed_at < now() - make_interval(days => %(days)s)
     ORDER BY closed_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
t AS MATERIALIZED (
    SELECT ctid FROM notify.throttle WHERE ends_at <= now() ORDER BY ends_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED),
digests AS (DELETE FROM notify.digest WHERE ctid = ANY(ARRAY(SELECT ctid FROM d)))
DELETE FROM notify.throttle WHERE ctid = ANY(ARRAY(SELECT ctid FROM t)) RETURNING key
"""


def prune(database: Database) -> int:
    """Forget digests whose message ids are forgotten, too, and throttles whose windows are over.

    Returns:
        how many throttles went.
    """
    return len(database.rows(_PRUNE, {"days": KEPT_DAYS, "limit": PRUNED}))


# --- looked at ----------------------------------------------------------------------------------------

_OPEN: Final = """
SELECT g.id, g.digest_type AS type, g.channel, g.by_value AS "group", g.at AS "when", g.opened_at, g.due_at,
       g.state = 'full' AS "full",
       (SELECT count(DISTINCT d.notification_id) FROM notify.delivery d
         WHERE d.digest_id = g.id AND d.state = 'held') AS count
  FROM notify.digest g
 WHERE g.tenant = %(tenant)s AND g.recipient_id = %(id)s AND g.state <> 'closed'
 ORDER BY g.due_at, g.id LIMIT 1000
"""


def open_digests(database: Database, recipient_id: str, tenant: str = "default") -> list[OpenDigest]:
    """What is gathered for a person and not yet sent, the next one first."""
    rows = database.rows(_OPEN, {"tenant": tenant, "id": recipient_id})
    return [OpenDigest(**row) for row in rows]


_OPEN_BY_KEY: Final = """
SELECT key, id, due_at, cap_at FROM notify.digest WHERE state = 'open' AND key = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Joinable:
    """An open digest that something of this key would join."""

    key: str
    id: uuid.UUID
    due_at: datetime
    cap_at: datetime | None


def joinable(database: Database, keys: Sequence[str]) -> dict[str, Joinable]:
    """The open digests of some keys (`Decision.digest.key`). Reads only, for who asks what would happen."""
    return {row["key"]: Joinable(**row) for row in database.rows(_OPEN_BY_KEY, (list(keys),))}


_USED: Final = """
SELECT t.key, t.most, t.seconds, w.start, notify.throttle_used(t, w.start) AS used, now() AS now
  FROM notify.throttle t
 CROSS JOIN LATERAL (
       SELECT to_timestamp(floor(extract(epoch FROM now())::float8 / t.seconds) * t.seconds) AS start) w
 WHERE t.key = ANY(%s)
"""


def used(database: Database, keys: Sequence[str]) -> dict[str, Use]:
    """How far some throttles (`Decision.counted.key`) are used up. One that is not in the result is not used at all."""
    return {row["key"]: _use(row) for row in database.rows(_USED, (list(keys),))}


def _use(row: Row) -> Use:
    later = timedelta(seconds=row["used"] // row["most"] * row["seconds"])
    return Use(
        row["key"],
        row["most"],
        row["seconds"],
        min(row["used"], row["most"]),
        max(row["start"] + later, row["now"]),
    )
