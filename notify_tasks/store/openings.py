"""What an app says was opened: a push, a web push, anything that it shows by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from notify_tasks.store.database import Connection, Database

# Locked by a statement of its own: the next one sees what those that held them before have written.
_LOCK: Final = """
SELECT d.id FROM notify.delivery d
 WHERE d.id = ANY(%(ids)s::uuid[]) AND d.tenant = %(tenant)s AND d.recipient_id = %(recipient_id)s AND d.fence > 0
 ORDER BY d.id FOR UPDATE
"""
# What somebody has opened was delivered, whatever its worker or its provider could still say: as with the inbox.
_MARK: Final = """
WITH found AS MATERIALIZED (
    SELECT d.id, d.tenant, d.notification_id, d.state,
           d.state IN ('sent', 'undelivered', 'held', 'queued', 'retrying')
             OR d.state = 'in_doubt' AND d.updated_at > now() - make_interval(hours => 72) AS moves,
           EXISTS (SELECT 1 FROM notify.status_event e
                    WHERE e.notification_id = d.notification_id AND e.delivery_id = d.id AND e.kind = 'read') AS known
      FROM notify.delivery d WHERE d.id = ANY(%(mine)s)),
moved AS (
    UPDATE notify.delivery d
       SET state = CASE WHEN f.moves THEN 'delivered' ELSE d.state END,
           reason = CASE WHEN f.moves THEN NULL ELSE d.reason END,
           due_at = CASE WHEN f.moves THEN NULL ELSE d.due_at END, accepted = true, updated_at = now()
      FROM found f WHERE d.id = f.id AND (f.moves OR f.state = 'sending')),
event AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind)
    SELECT tenant, notification_id, id, 'delivered' FROM found WHERE moves
    UNION ALL
    SELECT tenant, notification_id, id, 'read' FROM found WHERE NOT known)
SELECT count(*) AS n FROM found WHERE NOT known
"""


def mark(database: Database, recipient_id: str, ids: Sequence[str], *, tenant: str = "default") -> int:
    """Mark deliveries of a recipient as read. Returns how many were not until now."""
    wanted: dict[str, Any] = {"tenant": tenant, "recipient_id": recipient_id, "ids": list(ids)}

    def run(connection: Connection) -> int:
        mine = [row["id"] for row in connection.execute(_LOCK, wanted).fetchall()]
        if not mine:
            return 0
        row = connection.execute(_MARK, {"mine": mine}).fetchone()
        return int(row["n"]) if row else 0

    return database.transact(run)
