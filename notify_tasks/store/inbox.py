"""The in-app inbox: one row for a delivery, however often it is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from notify_tasks.store.database import Database, jsonb

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


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """One in-app message of a recipient.

    Args:
        id: of the delivery that brought it, a UUID.
        event_type: what the producer named it.
        data: the rendered object, as the type's template of in-app messages makes it.
        created_at: when it was stored, in UTC.
        read_at: when it was first marked as read, in UTC; None while it is unread.
    """

    id: str
    event_type: str
    data: Mapping[str, Any] = field(repr=False)
    created_at: datetime
    read_at: datetime | None


@dataclass(frozen=True, slots=True)
class InboxCounts:
    """How many messages a recipient has, and how many of them are not read."""

    total: int
    unread: int


@dataclass(frozen=True, slots=True)
class InboxPage:
    """Messages, newest first. `next` is the `after` of the next page; None at the end."""

    messages: tuple[InboxMessage, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a page ended. Written as microseconds since 1970 and an id, which a URL takes as they are."""

    created_at: datetime
    id: str

    def __str__(self) -> str:
        return f"{(self.created_at - _EPOCH) // timedelta(microseconds=1)}-{self.id}"

    @classmethod
    def read(cls, written: str) -> Mark | None:
        """The mark that was written so; None where it is no mark."""
        found = _MARK.fullmatch(written)
        return cls(_EPOCH + timedelta(microseconds=int(found[1])), found[2]) if found else None


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MARK: Final = re.compile(r"([0-9]{1,17})-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
_LAST: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"

_BEFORE = """
SELECT delivery_id::text AS id, event_type, data, created_at, read_at FROM notify.inbox_item
 WHERE tenant = %(tenant)s AND recipient_id = %(recipient_id)s
   AND (created_at, delivery_id) < (%(created_at)s::timestamptz, %(id)s::uuid)
"""
_NEWEST_FIRST = " ORDER BY created_at DESC, delivery_id DESC LIMIT %(limit)s"
_READ = _BEFORE + _NEWEST_FIRST
_READ_UNREAD = f"{_BEFORE} AND read_at IS NULL {_NEWEST_FIRST}"
_COUNT = """
SELECT count(*) AS n FROM notify.inbox_item WHERE tenant = %s AND recipient_id = %s AND read_at IS NULL
"""
_COUNTS = """
SELECT count(*) AS total, count(*) FILTER (WHERE read_at IS NULL) AS unread
  FROM notify.inbox_item WHERE tenant = %s AND recipient_id = %s
"""
# Two devices that mark the same messages lock them in one order, and the second one finds them read.
# What somebody has read was delivered, whatever its worker could still say: that ends a doubt and stops a resend. While
# a worker has it, it is marked as accepted, so that no answer lost can end it otherwise; a doubt of 72 hours is final.
_MARK_READ = """
WITH found AS MATERIALIZED (
    SELECT delivery_id FROM notify.inbox_item
     WHERE tenant = %(tenant)s AND recipient_id = %(recipient_id)s AND read_at IS NULL
       AND (%(ids)s::uuid[] IS NULL OR delivery_id = ANY(%(ids)s::uuid[]))
     ORDER BY delivery_id FOR UPDATE),
marked AS (
    UPDATE notify.inbox_item i SET read_at = now() FROM found WHERE i.delivery_id = found.delivery_id
    RETURNING i.delivery_id),
locked AS MATERIALIZED (
    SELECT d.id, d.tenant, d.notification_id,
           d.state IN ('sent', 'held', 'queued', 'retrying')
             OR d.state = 'in_doubt' AND d.updated_at > now() - make_interval(hours => 72) AS moves
      FROM notify.delivery d WHERE d.id IN (SELECT delivery_id FROM found) ORDER BY d.id FOR UPDATE),
moved AS (
    UPDATE notify.delivery d
       SET state = CASE WHEN l.moves THEN 'delivered' ELSE d.state END,
           reason = CASE WHEN l.moves THEN NULL ELSE d.reason END,
           due_at = CASE WHEN l.moves THEN NULL ELSE d.due_at END, accepted = true, updated_at = now()
      FROM locked l WHERE d.id = l.id AND (l.moves OR d.state = 'sending')),
event AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind)
    SELECT tenant, notification_id, id, 'delivered' FROM locked WHERE moves
    UNION ALL
    SELECT tenant, notification_id, id, 'read' FROM locked l
     WHERE NOT EXISTS (SELECT 1 FROM notify.status_event e
                        WHERE e.notification_id = l.notification_id AND e.delivery_id = l.id AND e.kind = 'read'))
SELECT delivery_id FROM marked
"""
_MARK_UNREAD = """
UPDATE notify.inbox_item SET read_at = NULL
 WHERE tenant = %(tenant)s AND recipient_id = %(recipient_id)s AND read_at IS NOT NULL
   AND delivery_id = ANY(%(ids)s::uuid[])
RETURNING 1 AS one
"""
_DELETE = """
DELETE FROM notify.inbox_item
 WHERE tenant = %(tenant)s AND recipient_id = %(recipient_id)s
   AND (%(ids)s::uuid[] IS NULL OR delivery_id = ANY(%(ids)s::uuid[]))
RETURNING 1 AS one
"""


def messages(
    database: Database,
    recipient_id: str,
    *,
    unread: bool = False,
    after: Mark | None = None,
    limit: int = 50,
    tenant: str = "default",
) -> InboxPage:
    """A page of a recipient's messages, newest first.

    Args:
        database: the store.
        recipient_id: whose inbox.
        unread: only those that are not read.
        after: where the page before ended.
        limit: how many at most.
        tenant: whose recipient.
    """
    wanted = {
        "tenant": tenant,
        "recipient_id": recipient_id,
        "created_at": after.created_at if after else "infinity",
        "id": after.id if after else _LAST,
        "limit": limit + 1,
    }
    rows = database.rows(_READ_UNREAD if unread else _READ, wanted)
    found = tuple(InboxMessage(**row) for row in rows[:limit])
    return InboxPage(found, str(Mark(found[-1].created_at, found[-1].id)) if len(rows) > limit else None)


def unread_count(database: Database, recipient_id: str, *, tenant: str = "default") -> int:
    """How many messages a recipient has not read."""
    count: int = database.rows(_COUNT, (tenant, recipient_id))[0]["n"]
    return count


def counts(database: Database, recipient_id: str, *, tenant: str = "default") -> InboxCounts:
    """How many messages a recipient has."""
    return InboxCounts(**database.rows(_COUNTS, (tenant, recipient_id))[0])


def mark_read(
    database: Database, recipient_id: str, ids: Sequence[str] | None, *, tenant: str = "default"
) -> int:
    """Mark a recipient's messages as read, these or all; what is read keeps its time. Their deliveries arrived.

    Returns:
        how many were unread until now.
    """
    wanted = {
        "tenant": tenant,
        "recipient_id": recipient_id,
        "ids": None if ids is None else list(ids),
    }
    return len(database.rows(_MARK_READ, wanted))


def mark_unread(database: Database, recipient_id: str, ids: Sequence[str], *, tenant: str = "default") -> int:
    """Mark a recipient's messages as unread. Their deliveries arrived all the same. Returns how many were read."""
    return len(
        database.rows(_MARK_UNREAD, {"tenant": tenant, "recipient_id": recipient_id, "ids": list(ids)})
    )


def delete(
    database: Database, recipient_id: str, ids: Sequence[str] | None, *, tenant: str = "default"
) -> int:
    """Delete a recipient's messages, these or all. Returns how many are gone."""
    wanted = {"tenant": tenant, "recipient_id": recipient_id, "ids": None if ids is None else list(ids)}
    return len(database.rows(_DELETE, wanted))
