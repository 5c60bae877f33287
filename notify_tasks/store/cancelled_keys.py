"""Cancelling all that waits under a key: each call is sent or cancelled, never both, and the caller is told how many.

What is stored is found by the key. What is not stored yet meets a tombstone: the key with the moment of its cancel. An
accept of a call that has a key asks for it under a lock that a cancel of the same key excludes, so that a call is
either stored before, and found, or sees the tombstone. Calls without a key are asked nothing.

Which calls the tombstone stops is decided by the call's own timestamp: those made up to the moment of the cancel. Both
are told by clocks that are not the database's, so the moment is the canceller's own clock where that agrees with the
database's to within some seconds, and the database's where it does not: whoever cancels and then calls on one machine
is always understood, and a canceller's wrong clock cannot reach calls that come later.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from notify_tasks.store.database import Connection, Database, jsonb

if TYPE_CHECKING:
    from notify_tasks.store.accepting import NewNotification

PAGE: Final = 500
"""Notifications cancelled in one commit."""
KEPT_DAYS: Final = 30
"""For so long a tombstone holds, as message ids are remembered."""
TRUSTED_SECONDS: Final = 5.0
"""A clock that differs by more from the database's is not asked."""
FORGOTTEN: Final = 1000
_LOCKS: Final = 1_852_797_549
"""Names these locks among all advisory ones."""


@dataclass(slots=True)
class _Count:
    cancelled: int = 0
    too_late: int = 0
    in_doubt: int = 0
    stopped_before: int = 0


@dataclass(frozen=True, slots=True)
class CancelledAll:
    """What a cancel of a key did. Numbers are deliveries but for `calls`.

    Args:
        moment: calls made up to it are stopped, also those that no worker has seen; UTC.
        until: for so long those are.
        calls: calls that waited in the table `intake` and will never be planned.
        notifications: how many were found stored under the key.
        cancelled: stopped now, or by a cancel before.
        too_late: sent, or being sent. What is being sent is not tried again.
        in_doubt: an attempt's outcome is unknown; nothing more is sent.
        stopped_before: had ended without being sent.
    """

    cancel_key: str
    tenant: str
    moment: datetime
    until: datetime
    calls: int = 0
    notifications: int = 0
    cancelled: int = 0
    too_late: int = 0
    in_doubt: int = 0
    stopped_before: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing was sent, and nothing of what was found will be."""
        return self.too_late == 0 and self.in_doubt == 0


# The lock is a statement of its own: the one after it sees what those that held it before have committed.
_EXCLUDE: Final = "SELECT pg_advisory_xact_lock(%s, hashtext(%s::text || '/' || %s::text))"
_TOMBSTONE: Final = """
WITH clock AS (SELECT clock_timestamp() AS now),
moment AS (
    SELECT now, CASE WHEN abs(extract(epoch FROM %(asked)s::timestamptz - now)) <= %(trusted)s
                     THEN %(asked)s::timestamptz ELSE now END AS at FROM clock)
INSERT INTO notify.cancelled_key AS k (tenant, cancel_key, made_until, cancelled_at, until)
SELECT %(tenant)s, %(key)s, at, now, now + make_interval(days => %(days)s) FROM moment
ON CONFLICT (tenant, cancel_key) DO UPDATE
   SET made_until = greatest(k.made_until, excluded.made_until), cancelled_at = excluded.cancelled_at,
       until = excluded.until
RETURNING made_until, cancelled_at, until
"""
_UNPLANNED: Final = """
WITH gone AS (
    DELETE FROM notify.intake WHERE tenant = %(tenant)s AND envelope ->> 'cancel_key' = %(key)s
    RETURNING message_id),
ids AS (SELECT DISTINCT message_id FROM gone ORDER BY message_id),
key AS (
    INSERT INTO notify.message_key AS k (tenant, message_id, cancelled_at)
    SELECT %(tenant)s, message_id, now() FROM ids
    ON CONFLICT (tenant, message_id) DO UPDATE SET cancelled_at = coalesce(k.cancelled_at, now())
    RETURNING k.notification_id)
SELECT count(*) AS calls FROM key WHERE notification_id IS NULL
"""
_FORGET: Final = """
DELETE FROM notify.cancelled_key WHERE (tenant, cancel_key) IN (
    SELECT tenant, cancel_key FROM notify.cancelled_key WHERE until < now() ORDER BY until LIMIT %s)
"""
# What was made or stored up to the moment; a call made after it is not of this cancel.
_FOUND: Final = """
SELECT id FROM notify.notification
 WHERE tenant = %(tenant)s AND cancel_key = %(key)s AND id > %(after)s AND state <> 'rejected'
   AND (occurred_at <= %(made_until)s OR accepted_at <= %(cancelled_at)s)
 ORDER BY id LIMIT %(page)s
"""
_KEYS: Final = """
UPDATE notify.message_key k SET cancelled_at = coalesce(k.cancelled_at, now())
  FROM (SELECT tenant, message_id FROM notify.message_key
         WHERE (tenant, message_id) IN (SELECT tenant, message_id FROM notify.notification WHERE id = ANY(%s))
         ORDER BY tenant, message_id FOR UPDATE) c
 WHERE k.tenant = c.tenant AND k.message_id = c.message_id
"""
_STOP: Final = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.delivery
     WHERE notification_id = ANY(%s) AND state IN ('held', 'queued', 'retrying') ORDER BY id FOR UPDATE),
d AS (
    UPDATE notify.delivery d
       SET state = CASE WHEN d.unknown > 0 THEN 'in_doubt' ELSE 'cancelled' END, reason = 'cancelled', due_at = NULL,
           updated_at = now()
      FROM c WHERE d.id = c.id
    RETURNING d.id, d.tenant, d.notification_id, d.state)
INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code, detail)
SELECT tenant, notification_id, id, state, 'cancelled', 'by its cancel_key' FROM d
"""
_COUNT: Final = """
SELECT count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE state IN ('sending', 'sent', 'delivered', 'undelivered', 'digested')) AS too_late,
       count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt,
       count(*) FILTER (WHERE state IN ('failed', 'expired', 'suppressed', 'superseded')) AS stopped_before
  FROM notify.delivery WHERE notification_id = ANY(%s)
"""


def cancel_all(database: Database, cancel_key: str, *, tenant: str, asked: datetime) -> CancelledAll:
    """Cancel everything that was called for under a key, in commits of some hundred notifications.

    It may be run again after an error: what was cancelled stays so and is counted again.

    Args:
        database: the store.
        cancel_key: as the calls named it.
        tenant: whose they are.
        asked: the canceller's clock, in UTC.
    """
    asking = {
        "tenant": tenant,
        "key": cancel_key,
        "asked": asked,
        "trusted": TRUSTED_SECONDS,
        "days": KEPT_DAYS,
    }

    def begin(connection: Connection) -> tuple[dict[str, datetime], int]:
        connection.execute(_EXCLUDE, (_LOCKS, tenant, cancel_key))
        stone = connection.execute(_TOMBSTONE, asking).fetchone()
        calls = connection.execute(_UNPLANNED, asking).fetchone()
        connection.execute(_FORGET, (FORGOTTEN,))
        assert stone is not None
        assert calls is not None
        return stone, calls["calls"]

    stone, calls = database.transact(begin)
    counts, notifications = _Count(), 0
    after = uuid.UUID(int=0)
    while True:
        wanted = asking | stone | {"after": after, "page": PAGE}
        ids = [row["id"] for row in database.rows(_FOUND, wanted)]
        if not ids:
            break
        _add(counts, database, ids)
        notifications += len(ids)
        after = ids[-1]
    return CancelledAll(
        cancel_key,
        tenant,
        stone["made_until"],
        stone["until"],
        calls,
        notifications,
        counts.cancelled,
        counts.too_late,
        counts.in_doubt,
        counts.stopped_before,
    )


def _add(counts: _Count, database: Database, ids: Sequence[uuid.UUID]) -> None:
    """Stop what waits of these notifications, in one commit, and count what they are now."""

    def run(connection: Connection) -> dict[str, int]:
        given = (list(ids),)
        connection.execute(_KEYS, given)
        connection.execute(_STOP, given)
        row = connection.execute(_COUNT, given).fetchone()
        assert row is not None
        return row

    row = database.transact(run)
    for name, number in row.items():
        setattr(counts, name, getattr(counts, name) + number)


# --- what an accept asks ------------------------------------------------------------------------------

_SHARE: Final = """
SELECT pg_advisory_xact_lock_shared(%s, h) FROM (
    SELECT DISTINCT hashtext(tenant || '/' || key) AS h
      FROM jsonb_to_recordset(%s::jsonb) AS x(tenant text, key text) ORDER BY 1 OFFSET 0) locks
"""
_STOPPED: Final = """
INSERT INTO notify.message_key (tenant, message_id, cancelled_at)
SELECT DISTINCT x.tenant, x.message_id, k.cancelled_at
  FROM jsonb_to_recordset(%s::jsonb) AS x(tenant text, key text, message_id text, made timestamptz)
  JOIN notify.cancelled_key k ON k.tenant = x.tenant AND k.cancel_key = x.key
 WHERE x.made <= k.made_until AND k.until > now()
 ORDER BY 1, 2
ON CONFLICT DO NOTHING
"""


def stop(connection: Connection, items: Sequence[NewNotification]) -> None:
    """Take the message ids of those whose key was cancelled, as a cancel by id does, so that they cannot be accepted.

    Args:
        connection: in the transaction that accepts.
        items: those with a key.
    """
    document = jsonb(
        [
            {
                "tenant": item.notification.tenant,
                "key": item.notification.cancel_key,
                "message_id": item.notification.message_id,
                "made": item.notification.timestamp.isoformat(),
            }
            for item in items
        ]
    )
    connection.execute(_SHARE, (_LOCKS, document))
    connection.execute(_STOPPED, (document,))
