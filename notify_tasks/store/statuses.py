"""What can be said of a message: its notification, deliveries, attempts and events, in the order of time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from notify_tasks.store.database import Database, Row


@dataclass(frozen=True, slots=True)
class AttemptStatus:
    """One call of a provider; `outcome` is None while it runs."""

    number: int
    provider: str
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    code: str | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """A move into a state that is worth a line."""

    kind: str
    code: str | None
    detail: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """One delivery. The address is shortened to what an operator needs to recognise it."""

    id: uuid.UUID
    recipient_id: str | None
    address: str
    channel: str
    lane: str
    state: str
    reason: str | None
    provider: str | None
    provider_message_id: str | None
    template_version: str | None
    attempts_spent: int
    due_at: datetime | None
    expires_at: datetime | None
    created_at: datetime
    replay_of: uuid.UUID | None
    attempts: list[AttemptStatus] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    chain: int | None = None
    """Which entry of `to` it is for, where its type has steps."""
    step: int | None = None
    step_after: float | None = None
    """Seconds for which it waits when the step before it has been sent; None where it waits for none."""
    step_unless: list[str] | None = None
    """What makes it needless: `read`, `delivered`."""
    step_at: datetime | None = None
    """When it has its turn; None as long as nothing has become of the step before it."""
    digest_due_at: datetime | None = None
    """When the digest is due that it waits for."""


@dataclass(frozen=True, slots=True)
class Status:
    """One notification. A message id has several where a conflict was refused, or a rejected call replayed."""

    id: uuid.UUID
    message_id: str
    event_type: str
    state: str
    reason: str | None
    detail: str | None
    source: str | None
    occurred_at: datetime
    accepted_at: datetime
    plan: dict[str, Any]
    attachments: list[dict[str, Any]] = field(default_factory=list)
    """Their names, types and sizes."""
    deliveries: list[DeliveryStatus] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    purged_at: datetime | None = None
    """When its payload and addresses were removed, being too old."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, for machines."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Found:
    """Everything under one message id.

    Args:
        notifications: what was stored, oldest first.
        kept_since: it waits in the intake table, and since when.
        cancelled_at: a cancel came before any worker had seen it.
        schedule: the recurring schedule that made the call.
        occurrence: for which of its times, in UTC.
    """

    notifications: list[Status]
    kept_since: datetime | None = None
    cancelled_at: datetime | None = None
    schedule: str | None = None
    occurrence: datetime | None = None


_NOTIFICATIONS = """
SELECT id, message_id, event_type, state, reason, detail, source, occurred_at, accepted_at, plan,
       attachments, purged_at
  FROM notify.notification WHERE tenant = %s AND message_id = %s ORDER BY accepted_at, id
"""
_DELIVERIES = """
SELECT id, notification_id, recipient_id, address, channel, lane, state, reason, provider, provider_message_id,
       template_version, attempts AS attempts_spent, due_at, expires_at, created_at, replay_of,
       chain, step, step_after, step_unless, step_at,
       (SELECT g.due_at FROM notify.digest g WHERE g.id = digest_id AND g.state <> 'closed') AS digest_due_at
  FROM notify.delivery WHERE notification_id = ANY(%s) ORDER BY created_at, channel, id
"""
_ATTEMPTS = """
SELECT delivery_id, number, provider, worker, started_at, ended_at, outcome, code, detail
  FROM notify.attempt WHERE delivery_id = ANY(%s) ORDER BY started_at, number
"""
_EVENTS = """
SELECT notification_id, delivery_id, kind, code, detail, at
  FROM notify.status_event WHERE notification_id = ANY(%s) ORDER BY id
"""
_KEPT = """
SELECT (SELECT min(created_at) FROM notify.intake WHERE tenant = %(tenant)s AND message_id = %(id)s) AS kept_since,
       (SELECT cancelled_at FROM notify.message_key WHERE tenant = %(tenant)s AND message_id = %(id)s) AS cancelled_at,
       o.schedule_id AS schedule, o.occurrence
  FROM (SELECT 1) one
  LEFT JOIN LATERAL (
      SELECT schedule_id, occurrence FROM notify.schedule_occurrence
       WHERE tenant = %(tenant)s AND message_id = %(id)s LIMIT 1) o ON true
"""


def read(database: Database, message_id: str, *, tenant: str = "default") -> Found:
    """Everything that is known of a message id; nothing at all where it was never seen."""
    kept = database.rows(_KEPT, {"tenant": tenant, "id": message_id})[0]
    rows = database.rows(_NOTIFICATIONS, (tenant, message_id))
    notifications = [Status(**row | {"attachments": _described(row["attachments"])}) for row in rows]
    by_id = {it.id: it for it in notifications}
    deliveries: dict[uuid.UUID, DeliveryStatus] = {}
    for row in database.rows(_DELIVERIES, (list(by_id),)) if by_id else []:
        owner = by_id[row.pop("notification_id")]
        row["address"] = shortened(row["address"])
        delivery = DeliveryStatus(**row)
        deliveries[delivery.id] = delivery
        owner.deliveries.append(delivery)
    for row in database.rows(_ATTEMPTS, (list(deliveries),)) if deliveries else []:
        deliveries[row.pop("delivery_id")].attempts.append(AttemptStatus(**row))
    for owner_id, delivery_id, event in _events(database, list(by_id)):
        target = deliveries.get(delivery_id) if delivery_id else None
        (target.events if target else by_id[owner_id].events).append(event)
    return Found(notifications, **kept)


def _events(database: Database, ids: list[uuid.UUID]) -> Iterator[tuple[uuid.UUID, uuid.UUID | None, Event]]:
    rows: list[Row] = database.rows(_EVENTS, (ids,)) if ids else []
    for row in rows:
        yield row.pop("notification_id"), row.pop("delivery_id"), Event(**row)


def _described(attachments: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Without the path of a stored file, which is the producer's own affair."""
    return [{key: each.get(key) for key in ("name", "type", "size")} for each in attachments or ()]


def shortened(address: str) -> str:
    """Enough of an address to recognise it, too little to use it: `an…@example.com`, `+1…67`."""
    name, at, domain = address.rpartition("@")
    if at:
        return f"{name[:2]}…@{domain}"
    return address if len(address) <= 8 else f"{address[:3]}…{address[-2:]}"  # noqa: PLR2004 - too short to shorten


_TOTALS = "SELECT state, count(*) AS n FROM notify.delivery GROUP BY state ORDER BY state"


def totals(database: Database) -> dict[str, int]:
    """Deliveries by state."""
    return {row["state"]: row["n"] for row in database.rows(_TOTALS)}
