"""What the sweep finds: ended leases, expired and due rows, and wake-ups that were lost.

Every function takes at most `limit` rows with SKIP LOCKED, so that any number of sweeps may run at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from notify_tasks.store.database import Database, jsonb

GAP_SECONDS: Final = 15
"""A sweep that comes later than this after the last one was away itself."""
MARKER_SECONDS: Final = 10
GRACE_SECONDS: Final = 10
"""So long after a marker ran, what was published before it and is unclaimed was lost."""
MARKERS_KEPT: Final = 50


@dataclass(frozen=True, slots=True)
class Pass:
    """One sweep: the database's time, and whether leases may be ended in it."""

    now: datetime
    leases_open: bool


_BEGIN = """
UPDATE notify.sweep
   SET leases_from = CASE WHEN last_at IS NULL OR last_at < now() - make_interval(secs => %s)
                          THEN now() + make_interval(secs => %s) ELSE leases_from END,
       last_at = now(), last_by = %s
RETURNING now(), coalesce(leases_from <= now(), true) AS leases_open
"""


def begin(database: Database, *, by: str, lease: float) -> Pass:
    """Note that a sweep begins.

    After a gap in the sweeps themselves no lease is ended for one full lease (`lease` seconds): whatever held the
    sweep up may have held the workers up too, and they get the time to write their results.
    """
    row = database.rows(_BEGIN, (GAP_SECONDS, lease, by))[0]
    return Pass(row["now"], row["leases_open"])


_AGE = "SELECT extract(epoch FROM now() - last_at)::float8 AS age FROM notify.sweep"


def last_age(database: Database) -> float | None:
    """Seconds since the last sweep began; None before the first."""
    age: float | None = database.rows(_AGE)[0]["age"]
    return age


_TICKED = "UPDATE notify.sweep SET ticked_at = now() WHERE ticked_at IS NULL OR ticked_at < now() - interval '1 second'"
_TICK_AGE = "SELECT extract(epoch FROM now() - ticked_at)::float8 AS age FROM notify.sweep"


def ticked(database: Database) -> None:
    """A tick of beat has come: a worker that sweeps of itself has none."""
    database.rows(_TICKED)


def tick_age(database: Database) -> float | None:
    """Seconds since the last tick of beat was carried out; None before the first."""
    age: float | None = database.rows(_TICK_AGE)[0]["age"]
    return age


@dataclass(frozen=True, slots=True)
class Wake:
    """A row to publish on its queue.

    Args:
        message_id: under which Flower groups it; empty where it is not known.
        event_type: what Flower shows of it.
    """

    id: uuid.UUID
    channel: str
    lane: str
    message_id: str = ""
    event_type: str = ""


_END_LEASES = """
WITH c AS MATERIALIZED (
    SELECT id, fence FROM notify.delivery WHERE state = 'sending' AND lease_until < now()
     ORDER BY lease_until LIMIT %s FOR UPDATE SKIP LOCKED),
a AS (
    UPDATE notify.attempt t SET outcome = 'lost', code = 'lease_expired', ended_at = now()
      FROM c WHERE t.delivery_id = c.id AND t.fence = c.fence AND t.outcome IS NULL
    RETURNING t.delivery_id),
d AS (
    UPDATE notify.delivery d
       SET state = CASE WHEN d.accepted THEN 'sent'
                        WHEN d.attempts >= d.max_attempts OR d.expires_at <= now()
                          OR (d.on_doubt = 'hold' AND d.provider <> ALL(%s)) THEN 'in_doubt'
                        ELSE 'queued' END,
           reason = CASE WHEN d.accepted THEN NULL ELSE 'lease_expired' END,
           unknown = d.unknown + 1, lease_until = NULL,
           marker = notify.marker_now(notify.queue_for(d.channel, d.lane)), updated_at = now()
      FROM c WHERE d.id = c.id
    RETURNING d.id, d.tenant, d.notification_id, d.channel, d.lane, d.message_id, d.event_type, d.state),
event AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code)
    SELECT tenant, notification_id, id,
           CASE state WHEN 'queued' THEN 'lease_ended' ELSE state END, 'lease_expired' FROM d)
SELECT id, channel, lane, message_id, event_type, state FROM d
"""


def end_leases(database: Database, *, knowable: Sequence[str], limit: int) -> tuple[list[Wake], int]:
    """End leases that ran out: the attempt's outcome is unknown.

    Args:
        database: the store.
        knowable: names of the providers that honour idempotency keys or can be asked. At any other provider a type
            with `on_doubt = "hold"` goes into doubt instead of being sent again.
        limit: rows at most.

    Returns:
        what to publish again, and how many rows were ended in all.
    """
    rows = database.rows(_END_LEASES, (limit, list(knowable)))
    queued = [row for row in rows if row.pop("state") == "queued"]
    return [Wake(**row) for row in queued], len(rows)


_EXPIRE = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.delivery
     WHERE state IN ('held', 'queued', 'retrying') AND expires_at IS NOT NULL AND expires_at <= now()
     ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED),
d AS (
    UPDATE notify.delivery d
       SET state = CASE WHEN d.unknown > 0 THEN 'in_doubt' ELSE 'expired' END, reason = 'expired', due_at = NULL,
           updated_at = now()
      FROM c WHERE d.id = c.id
    RETURNING d.id, d.tenant, d.notification_id, d.state)
INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code)
SELECT tenant, notification_id, id, state, 'expired' FROM d
RETURNING delivery_id
"""


def expire(database: Database, *, limit: int) -> int:
    """End what waited past its expiry."""
    return len(database.rows(_EXPIRE, (limit,)))


_DUE = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.delivery WHERE state IN ('held', 'retrying') AND due_at <= now()
     ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED)
UPDATE notify.delivery d
   SET state = 'queued', due_at = NULL, not_before = NULL,
       -- How late it is counts from the time for which it was planned.
       planned_for = CASE WHEN d.state = 'held' AND d.fence = 0 AND notify.waits_by_plan(d.reason)
                          THEN d.due_at ELSE d.planned_for END,
       marker = notify.marker_now(notify.queue_for(d.channel, d.lane)), updated_at = now()
  FROM c WHERE d.id = c.id
RETURNING d.id, d.channel, d.lane, d.message_id, d.event_type
"""


_DUE_HIGH = _DUE.replace("due_at <= now()", "lane = 'high' AND due_at <= now()")


def take_due(database: Database, *, limit: int, lane: str | None = None) -> list[Wake]:
    """Queue what is due: all of it, or of the lane `high` alone."""
    return [Wake(**row) for row in database.rows(_DUE if lane is None else _DUE_HIGH, (limit,))]


_RESPREAD = """
WITH c AS MATERIALIZED (
    SELECT id, due_at FROM notify.delivery WHERE state = 'held' AND reason = %s FOR UPDATE SKIP LOCKED),
place AS (SELECT id, row_number() OVER (ORDER BY due_at) * %s::float8 AS wait FROM c)
UPDATE notify.delivery d SET due_at = now() + make_interval(secs => p.wait), updated_at = now()
  FROM place p WHERE d.id = p.id
RETURNING p.wait
"""


def respread(database: Database, reason: str, spacing: float) -> list[float]:
    """Give what is held for a reason new times, in the order of the old ones.

    Args:
        database: the store.
        reason: of the rows.
        spacing: seconds between two.

    Returns:
        the waits, in seconds.
    """
    return [row["wait"] for row in database.rows(_RESPREAD, (reason, spacing))]


# --- markers ----------------------------------------------------------------------------------------

_WAITING = """
SELECT q.queue FROM jsonb_to_recordset(%s::jsonb) AS q(queue text, channel text, lane text)
 WHERE EXISTS (SELECT 1 FROM notify.delivery d
                WHERE d.state = 'queued' AND d.channel = q.channel AND d.lane = q.lane)
"""


def queues_with_waiting_rows(database: Database, queues: Sequence[tuple[str, str, str]]) -> list[str]:
    """Which of the queues (`(queue, channel, lane)`) have rows that wait for a worker."""
    document = jsonb([{"queue": queue, "channel": channel, "lane": lane} for queue, channel, lane in queues])
    return [row["queue"] for row in database.rows(_WAITING, (document,))]


_NEW_MARKERS = """
INSERT INTO notify.marker (queue, n, bucket)
SELECT q.queue, coalesce(m.n, 0) + 1, %s
  FROM unnest(%s::text[]) AS q(queue)
  LEFT JOIN LATERAL (SELECT n, sent_at FROM notify.marker WHERE queue = q.queue ORDER BY n DESC LIMIT 1) m ON true
 WHERE m.sent_at IS NULL OR m.sent_at <= now() - make_interval(secs => %s)
ON CONFLICT DO NOTHING
RETURNING queue, n
"""


def new_markers(database: Database, queues: Sequence[str], bucket: int | None) -> list[tuple[str, int]]:
    """Number a new marker for each queue whose last one is ten seconds old; the caller publishes them."""
    rows = database.rows(_NEW_MARKERS, (bucket, list(queues), MARKER_SECONDS - 0.5))
    return [(row["queue"], row["n"]) for row in rows]


_RAN = "UPDATE notify.marker SET ran_at = now() WHERE queue = %s AND n = %s AND ran_at IS NULL"


def marker_ran(database: Database, queue: str, n: int) -> None:
    """A marker came out of its queue."""
    database.rows(_RAN, (queue, n))


@dataclass(frozen=True, slots=True)
class Passed:
    """The highest marker of a queue that ran at least the grace ago, and its ledger bucket."""

    queue: str
    n: int
    bucket: int | None


_PASSED = """
SELECT DISTINCT ON (queue) queue, n, bucket FROM notify.marker
 WHERE ran_at <= now() - make_interval(secs => %s) ORDER BY queue, n DESC
"""


def passed_markers(database: Database) -> dict[str, Passed]:
    """By queue, the highest marker that counts."""
    return {row["queue"]: Passed(**row) for row in database.rows(_PASSED, (GRACE_SECONDS,))}


_SILENT = """
SELECT queue, extract(epoch FROM now() - min(sent_at))::float8 AS age FROM notify.marker m
 WHERE ran_at IS NULL AND n > coalesce(
     (SELECT max(k.n) FROM notify.marker k WHERE k.queue = m.queue AND k.ran_at IS NOT NULL), 0)
 GROUP BY queue
"""


def silent_queues(database: Database) -> dict[str, float]:
    """Seconds since the oldest marker that has not come back, by queue: nobody consumes it, or it is behind."""
    return {row["queue"]: row["age"] for row in database.rows(_SILENT)}


_PRUNE = """
DELETE FROM notify.marker m USING (
    SELECT queue, max(n) AS n FROM notify.marker WHERE ran_at IS NOT NULL GROUP BY queue) top
 WHERE m.queue = top.queue AND m.n < top.n - %s
"""


def prune_markers(database: Database) -> None:
    """Forget markers long passed."""
    database.rows(_PRUNE, (MARKERS_KEPT,))


# A row stores the number of the last marker sent before it was published. The publishing follows its commit, so
# the very next marker may still overtake it in the queue; the one after that, ten seconds later, cannot.
_LOST = """
WITH q AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%s::jsonb) AS x(channel text, lane text, n bigint)),
c AS MATERIALIZED (
    SELECT w.id FROM q CROSS JOIN LATERAL (
        SELECT d.id FROM notify.delivery d
         WHERE d.state = 'queued' AND d.channel = q.channel AND d.lane = q.lane AND d.marker < q.n - 1
         ORDER BY d.marker LIMIT %s FOR UPDATE SKIP LOCKED) w)
-- An array, since for a join the planner expects many rows of each queue, and may read the whole table for them.
UPDATE notify.delivery d
   SET marker = notify.marker_now(notify.queue_for(d.channel, d.lane)), updated_at = now()
 WHERE d.id = ANY(ARRAY(SELECT id FROM c))
RETURNING d.id, d.channel, d.lane, d.message_id, d.event_type
"""


def take_lost(database: Database, passed: Sequence[tuple[str, str, int]], *, limit: int) -> list[Wake]:
    """Rows whose wake-up was lost, stamped anew: `(channel, lane, marker that passed)` for each queue."""
    document = jsonb([{"channel": channel, "lane": lane, "n": n} for channel, lane, n in passed])
    return [Wake(**row) for row in database.rows(_LOST, (document, limit))]


# --- counters ---------------------------------------------------------------------------------------

_COUNT = """
INSERT INTO notify.counter AS c (name, value) VALUES (%s, %s)
ON CONFLICT (name) DO UPDATE SET value = c.value + excluded.value
"""


def count(database: Database, name: str, by: int) -> None:
    """Add to a total that must survive the process."""
    if by:
        database.rows(_COUNT, (name, by))


def counters(database: Database) -> dict[str, int]:
    """Every total."""
    return {row["name"]: row["value"] for row in database.rows("SELECT name, value FROM notify.counter")}
