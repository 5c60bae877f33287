"""The in-app inbox: one row for a delivery, however often it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from notify_tasks.store.database import Database, jsonb

if TYPE_CHECKING:
    from collections.abc import Mapping

_PUT = """
INSERT INTO notify.inbox_item (delivery_id, tenant, recipient_id, event_type, data)
VALUES (%s, %s, %s, %s, %s::jsonb) ON CONFLICT DO NOTHING RETURNING delivery_id
"""


def put(
    database: Database,
    *,
    delivery_id: str,
    tenant: str,
    recipient_id: str,
    event_type: str,
    data: Mapping[str, Any],
) -> bool:
    """Store an item. False if the delivery has one already."""
    return bool(database.rows(_PUT, (delivery_id, tenant, recipient_id, event_type, jsonb(dict(data)))))
