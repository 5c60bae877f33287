"""What somebody who watches a running fleet asks: short rows, many at a time."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from notify_tasks.store.database import Database


@dataclass(frozen=True, slots=True)
class Seen:
    """One delivery as it is now, with its last attempt; or a notification without deliveries.

    Args:
        id: of the delivery; None for a notification that has none.
        state: of the delivery, or else of the notification.
        lease_left: seconds until a worker's claim ends; None where nobody has one.
        due_in: seconds until it is looked at again, at the latest.
        not_before: seconds until it may be tried again, where the provider or the plan said so.
        outcome: of the last attempt; None while it runs, or where there was none.
    """

    message_id: str
    event_type: str
    id: uuid.UUID | None
    recipient_id: str | None
    address: str = field(repr=False)
    channel: str
    lane: str
    state: str
    reason: str | None
    unknown: int
    lease_left: float | None
    due_in: float | None
    not_before: float | None
    number: int
    provider: str | None
    worker: str | None
    outcome: str | None
    code: str | None


_SEEN = """
SELECT n.message_id, n.event_type, d.id, d.recipient_id, coalesce(d.address, '') AS address,
       coalesce(d.channel, '') AS channel, coalesce(d.lane, '') AS lane, coalesce(d.state, n.state) AS state,
       CASE WHEN d.id IS NULL THEN n.reason ELSE d.reason END AS reason, coalesce(d.unknown, 0) AS unknown,
       extract(epoch FROM d.lease_until - now())::float8 AS lease_left,
       extract(epoch FROM d.due_at - now())::float8 AS due_in,
       extract(epoch FROM d.not_before - now())::float8 AS not_before,
       coalesce(a.number, 0) AS number, a.provider, a.worker, a.outcome, a.code
  FROM notify.notification n
  LEFT JOIN notify.delivery d ON d.notification_id = n.id
  LEFT JOIN LATERAL (SELECT number, provider, worker, outcome, code FROM notify.attempt
                      WHERE delivery_id = d.id ORDER BY started_at DESC LIMIT 1) a ON true
 WHERE n.tenant = %s AND n.message_id = ANY(%s)
 ORDER BY d.created_at, d.id
"""


def seen(database: Database, message_ids: Sequence[str], *, tenant: str = "default") -> list[Seen]:
    """These notifications as they are now. Those that no worker has planned yet are missing."""
    return [Seen(**row) for row in database.rows(_SEEN, (tenant, list(message_ids)))]


@dataclass(frozen=True, slots=True)
class Tried:
    """How often one delivery was tried, and when for the first time.

    Args:
        unknown: attempts whose outcome is unknown, or was for a time.
    """

    id: uuid.UUID
    message_id: str
    attempts: int
    unknown: int
    first_at: datetime | None
    in_inbox: bool


_TRIED = """
SELECT d.id, d.message_id, count(a.token)::int AS attempts,
       (count(a.token) FILTER (WHERE a.outcome IN ('lost', 'uncertain')))::int AS unknown,
       min(a.started_at) AS first_at,
       EXISTS (SELECT 1 FROM notify.inbox_item i WHERE i.delivery_id = d.id) AS in_inbox
  FROM notify.notification n
  JOIN notify.delivery d ON d.notification_id = n.id
  LEFT JOIN notify.attempt a ON a.delivery_id = d.id
 WHERE n.tenant = %s AND n.message_id = ANY(%s)
 GROUP BY d.id
"""


def tried(database: Database, message_ids: Sequence[str], *, tenant: str = "default") -> list[Tried]:
    """How the deliveries of these notifications were tried."""
    return [Tried(**row) for row in database.rows(_TRIED, (tenant, list(message_ids)))]


_KNOWN = "SELECT id::text FROM notify.delivery WHERE id = ANY(%s::uuid[])"


def known(database: Database, delivery_ids: Sequence[str]) -> set[str]:
    """Which of these deliveries exist."""
    return {row["id"] for row in database.rows(_KNOWN, (list(delivery_ids),))}


_PARKED = "SELECT count(*) AS n FROM notify.parked_message WHERE replayed_at IS NULL"


def parked_count(database: Database) -> int:
    """Parked messages that nobody has put back."""
    n: int = database.rows(_PARKED)[0]["n"]
    return n


_SCHEMA = "SELECT max(version) AS version FROM notify.schema_migration"


def schema_version(database: Database) -> int:
    """The schema's version. The schema must be there."""
    version: int = database.rows(_SCHEMA)[0]["version"]
    return version
