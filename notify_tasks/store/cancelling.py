"""Cancelling: sent or cancelled, never both, and the caller is told which."""

from __future__ import annotations

from dataclasses import dataclass

from notify_tasks.store.database import Connection, Database


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What a cancel did.

    Args:
        before_intake: no worker had seen the call; it will never be sent.
        cancelled: deliveries stopped now.
        too_late: deliveries that were being sent, or had been, by themselves or in a digest; those of an unknown
            outcome count here too.
        stopped_before: deliveries that had ended without being sent.
    """

    before_intake: bool
    cancelled: int
    too_late: int
    stopped_before: int

    @property
    def complete(self) -> bool:
        """Whether nothing was sent and nothing will be."""
        return self.too_late == 0


# Cancel and accept meet on the key's unique index: whoever commits first decides.
_TOMBSTONE = """
INSERT INTO notify.message_key AS k (tenant, message_id, cancelled_at) VALUES (%s, %s, now())
ON CONFLICT (tenant, message_id) DO UPDATE SET cancelled_at = coalesce(k.cancelled_at, now())
RETURNING notification_id
"""

_STOP = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.delivery WHERE notification_id = %s AND state IN ('held', 'queued', 'retrying')
     ORDER BY id FOR UPDATE),
d AS (
    UPDATE notify.delivery d
       SET state = CASE WHEN d.unknown > 0 THEN 'in_doubt' ELSE 'cancelled' END, reason = 'cancelled', due_at = NULL,
           updated_at = now()
      FROM c WHERE d.id = c.id
    RETURNING d.id, d.tenant, d.notification_id, d.state)
INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code)
SELECT tenant, notification_id, id, state, 'cancelled' FROM d
"""

_COUNT = """
SELECT count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE state IN ('sending', 'sent', 'delivered', 'undelivered', 'in_doubt', 'digested'))
           AS too_late,
       count(*) FILTER (WHERE state IN ('failed', 'expired', 'suppressed', 'superseded')) AS stopped_before
  FROM notify.delivery WHERE notification_id = %s
"""


def cancel(database: Database, tenant: str, message_id: str) -> Cancelled:
    """Cancel a notification by its message id, whether a worker has seen it or not."""
    return database.transact(lambda connection: _cancel(connection, tenant, message_id))


def _cancel(connection: Connection, tenant: str, message_id: str) -> Cancelled:
    connection.execute(
        "DELETE FROM notify.intake WHERE tenant = %s AND message_id = %s", (tenant, message_id)
    )
    row = connection.execute(_TOMBSTONE, (tenant, message_id)).fetchone()
    notification_id = row["notification_id"] if row else None
    if notification_id is None:
        return Cancelled(before_intake=True, cancelled=0, too_late=0, stopped_before=0)
    connection.execute(_STOP, (notification_id,))
    return _counted(connection, notification_id)


def _counted(connection: Connection, notification_id: object) -> Cancelled:
    row = connection.execute(_COUNT, (notification_id,)).fetchone() or {}
    return Cancelled(
        before_intake=False,
        cancelled=row["cancelled"],
        too_late=row["too_late"],
        stopped_before=row["stopped_before"],
    )
