"""Accepting: what planning needs to know, and the one commit that stores a plan.

Accepting a message id that is known changes nothing; whoever calls gets told what is there.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from notify_tasks.escalation import Place
from notify_tasks.notification import Notification
from notify_tasks.plans import Decision
from notify_tasks.store import attachments, cancelled_keys, joining
from notify_tasks.store.database import Connection, Database, jsonb
from notify_tasks.store.joining import Settled
from notify_tasks.trace_context import parent_of

# --- the one commit ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Claim:
    """What makes an accepted delivery start in the same commit."""

    token: uuid.UUID
    provider: str
    lease: float
    """Seconds."""
    worker: str


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery to store. With a claim it begins as `sending`.

    Args:
        digest_id: the digest that it joins, which `joining` says.
    """

    id: uuid.UUID
    decision: Decision
    queue: str
    claim: Claim | None = None
    digest_id: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class NewNotification:
    """A notification to store, with its deliveries.

    Args:
        keyed: False stores it beside the notification that already has the message id: a refused conflict.
    """

    id: uuid.UUID
    notification: Notification
    plan: dict[str, Any]
    deliveries: tuple[NewDelivery, ...] = ()
    state: str = "accepted"
    reason: str | None = None
    detail: str | None = None
    keyed: bool = True


@dataclass(frozen=True, slots=True)
class Existing:
    """What is stored under a message id already."""

    hash: str | None
    notification_id: uuid.UUID | None
    cancelled: bool


@dataclass(slots=True)
class Stored:
    """What the commit did.

    Args:
        new: ids of the notifications that were stored now.
        existing: for the others, by their id, what was there.
        states: the state in which each new delivery was stored.
        moments: when something will be due that the store itself gave a time: a digest, a place in a throttle.
    """

    new: set[uuid.UUID] = field(default_factory=set)
    existing: dict[uuid.UUID, Existing] = field(default_factory=dict)
    states: dict[uuid.UUID, str] = field(default_factory=dict)
    moments: list[datetime] = field(default_factory=list)


_ACCEPT = """
WITH input AS MATERIALIZED (SELECT %s::jsonb AS j),
n AS MATERIALIZED (
    SELECT x.* FROM input, jsonb_to_recordset(j->'n') AS x(
        id uuid, tenant text, message_id text, hash text, event_type text, source text, occurred_at timestamptz,
        payload jsonb, plan jsonb, state text, reason text, detail text, cancel_key text, envelope jsonb,
        keyed boolean, attachments jsonb, trace text)),
d AS MATERIALIZED (
    SELECT x.* FROM input, jsonb_to_recordset(j->'d') AS x(
        id uuid, notification_id uuid, tenant text, message_id text, event_type text, recipient_id text, address text,
        locale text, timezone text, channel text, lane text, state text, reason text, on_doubt text,
        sandbox boolean, due_at timestamptz, expires_at timestamptz, max_attempts smallint, queue text,
        category text, opt_in boolean, chain smallint, step smallint, leads boolean, step_after float8,
        step_unless text[], digest_id uuid, token uuid, provider text, lease float8, worker text)),
new_key AS (
    INSERT INTO notify.message_key (tenant, message_id, hash, notification_id)
    SELECT tenant, message_id, hash, id FROM n WHERE keyed ORDER BY tenant, message_id
    ON CONFLICT DO NOTHING
    RETURNING notification_id),
new AS MATERIALIZED (
    SELECT n.id FROM n JOIN new_key k ON k.notification_id = n.id
    UNION ALL SELECT n.id FROM n WHERE NOT n.keyed),
new_notification AS (
    INSERT INTO notify.notification (id, tenant, message_id, event_type, source, occurred_at, payload, plan, state,
                                     reason, detail, hash, cancel_key, envelope, attachments, trace)
    SELECT n.id, n.tenant, n.message_id, n.event_type, n.source, n.occurred_at, n.payload, n.plan, n.state,
           n.reason, n.detail, n.hash, n.cancel_key, n.envelope, n.attachments, n.trace
      FROM n JOIN new USING (id)
    ON CONFLICT (id) DO NOTHING  -- a conflict that was refused before
    RETURNING id),
new_delivery AS (
    INSERT INTO notify.delivery (id, notification_id, tenant, message_id, event_type, recipient_id, address, locale,
                                 timezone, channel, lane, state, reason, on_doubt, sandbox, due_at, expires_at,
                                 max_attempts, category, opt_in, chain, step, leads, step_after, step_unless,
                                 digest_id, marker, fence, attempts, lease_until, provider)
    SELECT d.id, d.notification_id, d.tenant, d.message_id, d.event_type, d.recipient_id, d.address, d.locale,
           d.timezone, d.channel, d.lane,
           -- A later step is asked when it has its turn.
           CASE WHEN s.address IS NOT NULL AND d.state <> 'expired' AND d.step_after IS NULL THEN 'suppressed'
                WHEN u.off THEN 'suppressed' ELSE d.state END,
           CASE WHEN s.address IS NOT NULL AND d.state <> 'expired' AND d.step_after IS NULL THEN 'address_suppressed'
                WHEN u.off THEN 'preference_off' ELSE d.reason END,
           d.on_doubt, d.sandbox, d.due_at, d.expires_at, d.max_attempts, d.category, coalesce(d.opt_in, false),
           d.chain, d.step, coalesce(d.leads, false), d.step_after, d.step_unless, d.digest_id,
           notify.marker_now(d.queue),
           c.one, c.one, CASE WHEN c.one = 1 THEN now() + make_interval(secs => d.lease) END,
           CASE WHEN c.one = 1 THEN d.provider END
      FROM d JOIN new ON new.id = d.notification_id
      LEFT JOIN LATERAL (
           SELECT x.address FROM notify.suppression x
            WHERE x.tenant IN (d.tenant, '*') AND x.channel = d.channel
              AND x.digest = md5(d.address) AND x.address = d.address LIMIT 1) s ON true
      -- What starts here was planned a moment ago; what does not is asked again by its claim.
     CROSS JOIN LATERAL (
           SELECT d.token IS NOT NULL AND d.category IS NOT NULL AND coalesce((
                  SELECT NOT notify.wanted(p.settings, d.category, d.channel, coalesce(d.opt_in, false))
                    FROM notify.preference p
                   WHERE p.tenant = d.tenant AND p.recipient_id = d.recipient_id), d.opt_in, false) AS off) u
     CROSS JOIN LATERAL (
           SELECT CASE WHEN d.token IS NOT NULL AND s.address IS NULL AND NOT u.off THEN 1 ELSE 0 END AS one) c
    RETURNING id, notification_id, tenant, state, reason),
new_attempt AS (
    INSERT INTO notify.attempt (token, delivery_id, number, fence, provider, idempotency_key, worker)
    SELECT d.token, d.id, 1, 1, d.provider, d.id::text, d.worker
      FROM new_delivery x JOIN d USING (id) WHERE x.state = 'sending'),
new_event AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code)
    SELECT tenant, notification_id, id, state, reason FROM new_delivery
     WHERE state IN ('suppressed', 'expired')
    UNION ALL
    SELECT n.tenant, n.id, NULL, n.state, n.reason FROM n JOIN new_notification USING (id)
     WHERE n.state <> 'accepted')
SELECT 'new' AS kind, id, NULL AS state, NULL AS hash, NULL::uuid AS notification_id, false AS cancelled
  FROM new_notification
UNION ALL
SELECT 'delivery', id, state, NULL, NULL, false FROM new_delivery
UNION ALL
SELECT 'old', n.id, NULL, k.hash, k.notification_id, k.cancelled_at IS NOT NULL
  FROM n JOIN notify.message_key k USING (tenant, message_id)
 WHERE n.keyed AND n.id NOT IN (SELECT id FROM new)
"""

_EXISTING = """
SELECT x.id, k.hash, k.notification_id, k.cancelled_at IS NOT NULL AS cancelled
  FROM jsonb_to_recordset(%s::jsonb) AS x(id uuid, tenant text, message_id text)
  JOIN notify.message_key k USING (tenant, message_id)
"""

# Two statements: the first one locks the people's rows, so the second one sees what a call that held them before has
# stored. In one, two calls for a new id at once would both keep their address where one replaces the other.
_PEOPLE = """
INSERT INTO notify.recipient AS r (tenant, id, locale, timezone)
SELECT DISTINCT ON (tenant, id) tenant, id, locale, timezone
  FROM jsonb_to_recordset(%s::jsonb) AS x(tenant text, id text, locale text, timezone text)
 ORDER BY tenant, id
ON CONFLICT (tenant, id) DO UPDATE
   SET locale = coalesce(excluded.locale, r.locale), timezone = coalesce(excluded.timezone, r.timezone),
       updated_at = now()
"""
_POINTS = """
WITH p AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%s::jsonb) AS x(tenant text, id text, channel text, address text)),
replaced AS (
    DELETE FROM notify.contact_point c USING p
     WHERE c.tenant = p.tenant AND c.recipient_id = p.id AND c.channel = p.channel
       AND p.channel IN ('email', 'sms', 'webhook', 'chat')
       AND NOT EXISTS (SELECT 1 FROM p k WHERE k.tenant = c.tenant AND k.id = c.recipient_id
                          AND k.channel = c.channel AND k.address = c.address))
INSERT INTO notify.contact_point (tenant, recipient_id, channel, address)
SELECT DISTINCT tenant, id, channel, address FROM p ORDER BY 1, 2, 3, 4
ON CONFLICT DO NOTHING
"""


def accept(database: Database, items: Sequence[NewNotification]) -> Stored:
    """Store notifications and their deliveries in one commit; those whose message id is known are left alone.

    Safe to run again with the same items when the outcome of the commit is unknown: what was stored comes back in
    `existing` under its own id (`existing[id].notification_id == id`).
    """
    # What was refused, a conflict not least, changes nobody.
    accepted = [item for item in items if item.state == "accepted"]
    upserts = {item.id: rows for item in accepted if (rows := _upsert_rows(item.notification))}
    attached = [item for item in accepted if item.notification.attachments]
    keyed = [item for item in items if item.keyed and item.notification.cancel_key is not None]
    timed = [item for item in items if joining.concerns(item)]
    if not upserts and not attached and not keyed and not timed:
        rows = database.rows(_ACCEPT, (_document(items),))
        stored = _read(rows)
    else:

        def run(connection: Connection, settled: Settled) -> Stored:
            if keyed:
                cancelled_keys.stop(connection, keyed)
            stored = _read(connection.execute(_ACCEPT, (_document(settled.items),)).fetchall())
            _upsert(connection, [row for id_, rows in upserts.items() if id_ in stored.new for row in rows])
            attachments.store(
                connection,
                [
                    (item.id, item.notification.tenant, item.notification.attachments)
                    for item in attached
                    if item.id in stored.new
                ],
            )
            stored.moments = settled.moments
            return stored

        stored = joining.despite_repetitions(database, items, timed, run)
    unseen = [item for item in items if item.id not in stored.new and item.id not in stored.existing]
    if unseen:  # the key was committed by another transaction while our statement ran, or twice in this one
        found = database.rows(
            _EXISTING,
            (
                jsonb(
                    [
                        {
                            "id": str(item.id),
                            "tenant": item.notification.tenant,
                            "message_id": item.notification.message_id,
                        }
                        for item in unseen
                    ]
                ),
            ),
        )
        for row in found:
            stored.existing[row["id"]] = Existing(row["hash"], row["notification_id"], row["cancelled"])
    return stored


def _document(items: Sequence[NewNotification]) -> str:
    return jsonb(
        {
            "n": [_notification_row(item) for item in items],
            "d": [_delivery_row(item, delivery) for item in items for delivery in item.deliveries],
        }
    )


def _read(rows: Sequence[dict[str, Any]]) -> Stored:
    stored = Stored()
    for row in rows:
        if row["kind"] == "new":
            stored.new.add(row["id"])
        elif row["kind"] == "delivery":
            stored.states[row["id"]] = row["state"]
        else:
            stored.existing[row["id"]] = Existing(row["hash"], row["notification_id"], row["cancelled"])
    return stored


def _upsert(connection: Connection, rows: list[dict[str, Any]]) -> None:
    if rows:
        document = jsonb(rows)
        connection.execute(_PEOPLE, (document,))
        connection.execute(_POINTS, (document,))


def _upsert_rows(notification: Notification) -> list[dict[str, Any]]:
    """Recipients of the call that come with an id and addresses."""
    return [
        {
            "tenant": notification.tenant,
            "id": ref.id,
            "locale": ref.locale,
            "timezone": ref.timezone,
            "channel": channel,
            "address": address,
        }
        for ref in notification.to
        if ref.id is not None
        for channel, address in ref.addresses.items()
    ]


def _notification_row(item: NewNotification) -> dict[str, Any]:
    notification = item.notification
    row: dict[str, Any] = {
        "id": str(item.id),
        "tenant": notification.tenant,
        "message_id": notification.message_id,
        "hash": notification.hash,
        "event_type": notification.event_type,
        "source": notification.source,
        "occurred_at": notification.timestamp.isoformat(),
        "payload": notification.payload,
        "plan": item.plan,
        "state": item.state,
        "reason": item.reason,
        "detail": item.detail,
        "cancel_key": notification.cancel_key,
        "envelope": notification.to_wire() if item.state != "accepted" else _left_out(item),
        "keyed": item.keyed,
    }
    if (trace := parent_of(notification.trace)) is not None:
        row["trace"] = trace
    if notification.attachments:
        row["attachments"] = [each.about() for each in notification.attachments]
    return row


def _left_out(item: NewNotification) -> dict[str, Any] | None:
    """The ids of recipients who get nothing of an accepted call, so that it is found when they ask why."""
    if not (item.plan.get("rejected") or item.plan.get("dropped")):
        return None
    reached = {delivery.decision.recipient for delivery in item.deliveries}
    to = [
        {"id": ref.id, "place": place}
        for place, ref in enumerate(item.notification.to)
        if ref.id is not None and place not in reached
    ]
    return {"to": to} if to else None


def _delivery_row(item: NewNotification, delivery: NewDelivery) -> dict[str, Any]:
    decision, claim = delivery.decision, delivery.claim
    row: dict[str, Any] = {
        "id": str(delivery.id),
        "notification_id": str(item.id),
        "tenant": item.notification.tenant,
        "message_id": item.notification.message_id,
        "event_type": item.notification.event_type,
        "recipient_id": decision.recipient_id,
        "address": decision.address,
        "locale": decision.locale,
        "timezone": decision.timezone,
        "channel": decision.channel,
        "lane": decision.lane,
        "state": "sending" if claim else decision.state,
        "reason": decision.reason,
        "on_doubt": decision.on_doubt,
        "sandbox": item.notification.sandbox,
        "due_at": decision.due_at.isoformat() if decision.due_at else None,
        "expires_at": decision.expires_at.isoformat(),
        "max_attempts": decision.max_attempts,
        "queue": delivery.queue,
        "category": decision.category,
    }
    if decision.opt_in:
        row["opt_in"] = True
    if delivery.digest_id is not None:
        row["digest_id"] = str(delivery.digest_id)
    if decision.place is not None:
        row |= _place_row(decision, decision.place, lasts=item.notification.expires is None)
    if claim:
        row |= {
            "token": str(claim.token),
            "provider": claim.provider,
            "lease": claim.lease,
            "worker": claim.worker,
        }
    return row


def _place_row(decision: Decision, place: Place, *, lasts: bool) -> dict[str, Any]:
    """Where a delivery stands in its recipient's steps.

    Args:
        decision: its.
        place: its.
        lasts: the call does not say itself when it is worthless: a step that waits is given its expiry with its turn.
    """
    row: dict[str, Any] = {"chain": decision.recipient, "step": place.number, "leads": place.leads}
    if place.waits:
        row |= {"step_after": place.after, "step_unless": list(place.unless)}
        if lasts:
            row["expires_at"] = None
    return row
