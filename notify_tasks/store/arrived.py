"""What a page that shows arrived messages asks: whose they are, how they stand, and what is in the in-app inbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from notify_tasks.store.database import Database


@dataclass(frozen=True, slots=True)
class Linked:
    """The delivery that a message belongs to, as it is now."""

    delivery_id: str
    tenant: str
    message_id: str
    event_type: str
    recipient_id: str | None
    channel: str
    state: str
    updated_at: datetime


_LINKED = """
SELECT id::text AS delivery_id, tenant, message_id, event_type, recipient_id, channel, state, updated_at
  FROM notify.delivery WHERE id = ANY(%s::uuid[])
"""


def linked(database: Database, delivery_ids: Sequence[str]) -> list[Linked]:
    """These deliveries. What the fleet does not know is missing.

    Args:
        database: the fleet's.
        delivery_ids: UUIDs, each of them.
    """
    return [Linked(**row) for row in database.rows(_LINKED, (list(delivery_ids),))]


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """One in-app message."""

    delivery_id: str
    recipient_id: str
    event_type: str
    data: dict[str, Any] = field(repr=False)
    created_at: datetime


_INBOX = """
SELECT delivery_id::text, recipient_id, event_type, data, created_at
  FROM notify.inbox_item WHERE created_at >= %s ORDER BY created_at DESC, delivery_id LIMIT %s
"""


def inbox(database: Database, since: datetime, most: int = 500) -> list[InboxMessage]:
    """The in-app messages that were stored since then, oldest first; of many, the newest."""
    return [InboxMessage(**row) for row in reversed(database.rows(_INBOX, (since, most)))]


_NOW = "SELECT now() AS now"


def moments_ago(database: Database, seconds: float) -> datetime:
    """The database's time so many seconds ago."""
    now: datetime = database.rows(_NOW)[0]["now"]
    return now - timedelta(seconds=seconds)


_PULSE = """
SELECT n.message_id, count(d.id) AS deliveries, max(d.updated_at) AS updated_at, sum(d.fence) AS claims,
       (SELECT max(e.id) FROM notify.status_event e WHERE e.notification_id = n.id) AS event
  FROM notify.notification n LEFT JOIN notify.delivery d ON d.notification_id = n.id
 WHERE n.tenant = %s AND n.message_id = ANY(%s) GROUP BY n.id, n.message_id
"""


def pulse(database: Database, tenant: str, message_ids: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """For each of these messages a value that changes whenever there is something new to tell of it."""
    found: dict[str, tuple[Any, ...]] = {}
    for row in database.rows(_PULSE, (tenant, list(message_ids))):
        message_id = row.pop("message_id")
        found[message_id] = (*found.get(message_id, ()), *row.values())
    return found
