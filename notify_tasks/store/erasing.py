"""Erasing a person: everything that says who they are or what they were sent goes, in one transaction.

What stays says that something happened, and when: ids, states, times, hashes, attempts and events. Suppressions stay,
too, since they are what keeps the fleet from writing to an address again.

What is not found: calls that are still in Redis, which are planned later as any call; calls to a bare address, which
name nobody; and messages parked because they cannot be read.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from notify_tasks.store.database import Connection, Database

REASON: Final = "recipient_erased"
_PARKED_PAGE: Final = 200


@dataclass(frozen=True, slots=True)
class Erased:
    """What erasing a person did.

    Args:
        known: there was a recipient of this id.
        addresses: contact points that are gone.
        cancelled: deliveries that waited, and were stopped.
        in_doubt: deliveries that waited after an attempt whose outcome is unknown: they are stopped, and may have
            arrived.
        being_sent: deliveries that a worker had: their result still lands, and nothing is tried after it.
        deliveries: deliveries whose address was blanked, whatever their state.
        notifications: notifications to this person alone, or to others who were erased before, whose payload was
            blanked.
        shared: notifications that other people got, too: their payload stays.
        inbox: in-app messages that are gone.
        calls: recurring schedules, and calls not yet planned or rejected and kept for a replay, that no longer name
            the person.
        parked: parked messages to this person alone that are gone.
        parked_unsearched: parked messages that name other people, too, or cannot be read, and stay.
    """

    known: bool
    addresses: int
    cancelled: int
    in_doubt: int
    being_sent: int
    deliveries: int
    notifications: int
    shared: int
    inbox: int
    calls: int
    parked: int
    parked_unsearched: int

    @property
    def anything(self) -> bool:
        """Whether there was anything to erase."""
        return self.known or any((self.deliveries, self.inbox, self.calls, self.parked))


_LOCK: Final = "SELECT 1 AS one FROM notify.recipient WHERE tenant = %(tenant)s AND id = %(id)s FOR UPDATE"

# Before deliveries, as a flush does it. What waits in them is stopped with the other deliveries.
_DIGESTS: Final = """
WITH d AS (DELETE FROM notify.digest WHERE tenant = %(tenant)s AND recipient_id = %(id)s)
DELETE FROM notify.throttle WHERE tenant = %(tenant)s AND recipient_id = %(id)s
"""

# An empty address is what later statements know an erased person's delivery by.
_DELIVERIES: Final = """
WITH c AS MATERIALIZED (
    SELECT id, state AS was, state IN ('held', 'queued', 'retrying') AS waits FROM notify.delivery
     WHERE tenant = %(tenant)s AND recipient_id = %(id)s AND address <> '' ORDER BY id FOR UPDATE),
d AS (
    UPDATE notify.delivery d
       SET address = '', locale = NULL, timezone = NULL,
           state = CASE WHEN NOT c.waits THEN d.state WHEN d.unknown > 0 THEN 'in_doubt' ELSE 'cancelled' END,
           reason = CASE WHEN c.waits THEN %(reason)s ELSE d.reason END,
           due_at = CASE WHEN c.waits THEN NULL ELSE d.due_at END,
           updated_at = CASE WHEN c.waits THEN now() ELSE d.updated_at END
      FROM c WHERE d.id = c.id
    RETURNING d.id, d.tenant, d.notification_id, d.state, c.was, c.waits),
event AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code)
    SELECT tenant, notification_id, id, state, %(reason)s FROM d WHERE waits)
SELECT count(*) AS deliveries,
       count(*) FILTER (WHERE waits AND state = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE waits AND state = 'in_doubt') AS in_doubt,
       count(*) FILTER (WHERE was = 'sending') AS being_sent
  FROM d
"""

_NOTIFICATIONS: Final = """
WITH c AS MATERIALIZED (
    SELECT DISTINCT notification_id AS id FROM notify.delivery WHERE tenant = %(tenant)s AND recipient_id = %(id)s),
alone AS MATERIALIZED (
    SELECT c.id FROM c WHERE NOT EXISTS (
        SELECT 1 FROM notify.delivery o
         WHERE o.notification_id = c.id AND o.recipient_id IS DISTINCT FROM %(id)s AND o.address <> '')),
attached AS (
    DELETE FROM notify.attachment a USING alone WHERE a.notification_id = alone.id),
blanked AS (
    UPDATE notify.notification n SET payload = '{}', attachments = NULL FROM alone
     WHERE n.id = alone.id AND (n.payload <> '{}' OR n.attachments IS NOT NULL)
    RETURNING n.id)
SELECT (SELECT count(*) FROM blanked) AS notifications,
       (SELECT count(*) FROM c) - (SELECT count(*) FROM alone) AS shared
"""

# Calls that were rejected keep their envelope for a replay.
_REJECTED: Final = """
WITH c AS MATERIALIZED (
    SELECT n.id, (SELECT jsonb_agg(e ORDER BY place)
                    FROM jsonb_array_elements(n.envelope -> 'to') WITH ORDINALITY AS t(e, place)
                   WHERE e ->> 'id' IS DISTINCT FROM %(id)s) AS others
      FROM notify.notification n
     WHERE n.envelope IS NOT NULL AND n.tenant = %(tenant)s
       AND n.envelope -> 'to' @> jsonb_build_array(jsonb_build_object('id', %(id)s::text))
     ORDER BY n.id FOR UPDATE)
UPDATE notify.notification n
   SET envelope = jsonb_set(n.envelope, '{to}', c.others),  -- NULL where there is nobody else
       payload = CASE WHEN c.others IS NULL THEN '{}' ELSE n.payload END,
       attachments = CASE WHEN c.others IS NULL THEN NULL ELSE n.attachments END
  FROM c WHERE n.id = c.id
RETURNING n.id
"""

_KEPT: Final = """
WITH c AS MATERIALIZED (
    SELECT i.tenant, i.message_id, i.hash,
           (SELECT jsonb_agg(e ORDER BY place)
              FROM jsonb_array_elements(i.envelope -> 'to') WITH ORDINALITY AS t(e, place)
             WHERE e ->> 'id' IS DISTINCT FROM %(id)s) AS others
      FROM notify.intake i
     WHERE i.tenant = %(tenant)s
       AND i.envelope -> 'to' @> jsonb_build_array(jsonb_build_object('id', %(id)s::text))
     ORDER BY i.tenant, i.message_id, i.hash FOR UPDATE),
gone AS (
    DELETE FROM notify.intake i USING c
     WHERE i.tenant = c.tenant AND i.message_id = c.message_id AND i.hash = c.hash AND c.others IS NULL
    RETURNING i.tenant, i.message_id),
-- As a cancel does: a copy of the call that is still in Redis finds that it is not to be sent.
tombstone AS (
    INSERT INTO notify.message_key (tenant, message_id, cancelled_at)
    SELECT DISTINCT tenant, message_id, now() FROM gone ORDER BY 1, 2
    ON CONFLICT DO NOTHING),
fewer AS (
    UPDATE notify.intake i SET envelope = jsonb_set(i.envelope, '{to}', c.others) FROM c
     WHERE i.tenant = c.tenant AND i.message_id = c.message_id AND i.hash = c.hash AND c.others IS NOT NULL)
SELECT 1 AS one FROM c
"""

# Before the calls that are kept: one that a schedule has just made is among them.
_SCHEDULES: Final = """
WITH c AS MATERIALIZED (
    SELECT s.tenant, s.id, (SELECT jsonb_agg(e ORDER BY place)
                              FROM jsonb_array_elements(s.envelope -> 'to') WITH ORDINALITY AS t(e, place)
                             WHERE e ->> 'id' IS DISTINCT FROM %(id)s) AS others
      FROM notify.schedule s
     WHERE s.tenant = %(tenant)s
       AND s.envelope -> 'to' @> jsonb_build_array(jsonb_build_object('id', %(id)s::text))
     ORDER BY s.id FOR UPDATE),
gone AS (
    DELETE FROM notify.schedule s USING c WHERE s.tenant = c.tenant AND s.id = c.id AND c.others IS NULL),
fewer AS (
    UPDATE notify.schedule s SET envelope = jsonb_set(s.envelope, '{to}', c.others), updated_at = now() FROM c
     WHERE s.tenant = c.tenant AND s.id = c.id AND c.others IS NOT NULL)
SELECT 1 AS one FROM c
"""

# What a provider said of the person's deliveries, in whose words an address may be. A receipt is locked before its
# delivery, as applying does it.
_RECEIPTS: Final = """
WITH c AS MATERIALIZED (
    SELECT r.id, r.request_id FROM notify.receipt r
     WHERE r.delivery_id IN (SELECT id FROM notify.delivery WHERE tenant = %(tenant)s AND recipient_id = %(id)s)
       AND (r.address IS NOT NULL OR r.request_id IS NOT NULL)
     ORDER BY r.id FOR UPDATE),
gone AS (
    DELETE FROM notify.receipt_request q USING c WHERE q.id = c.request_id)
UPDATE notify.receipt r SET address = NULL FROM c WHERE r.id = c.id
"""
_INBOX: Final = "DELETE FROM notify.inbox_item WHERE tenant = %(tenant)s AND recipient_id = %(id)s"
_BEGUN: Final = """
DELETE FROM notify.verification_begun b USING notify.contact_point c
 WHERE c.tenant = %(tenant)s AND c.recipient_id = %(id)s
   AND b.tenant = c.tenant AND b.channel = c.channel AND b.digest = c.digest
"""
# What was counted of endpoints that failed; those with secrets, or disabled, are an operator's affair and stay.
_ENDPOINTS: Final = """
DELETE FROM notify.webhook_endpoint e USING notify.contact_point c
 WHERE c.tenant = %(tenant)s AND c.recipient_id = %(id)s AND c.channel = 'webhook'
   AND e.tenant = c.tenant AND e.digest = c.digest AND e.secret IS NULL AND e.disabled_at IS NULL
"""
_POINTS: Final = "DELETE FROM notify.contact_point WHERE tenant = %(tenant)s AND recipient_id = %(id)s"
_PERSON: Final = "DELETE FROM notify.recipient WHERE tenant = %(tenant)s AND id = %(id)s"


def erase(database: Database, recipient_id: str, *, tenant: str = "default") -> Erased:
    """Erase a person in one transaction. Erasing again finds what has come meanwhile."""
    return database.transact(lambda connection: _erase(connection, recipient_id, tenant))


def look(database: Database, recipient_id: str, *, tenant: str = "default") -> Erased:
    """What erasing would do: it is done, and taken back in the same transaction."""

    def run(connection: Connection) -> Erased:
        with connection.transaction(force_rollback=True):
            return _erase(connection, recipient_id, tenant)

    return database.transact(run)


def _erase(connection: Connection, recipient_id: str, tenant: str) -> Erased:
    who = {"id": recipient_id, "tenant": tenant, "reason": REASON}
    connection.execute(_RECEIPTS, who)
    connection.execute(_DIGESTS, who)
    # Deliveries before people, as accepting does it: two that lock in another order end each other.
    scheduled = connection.execute(_SCHEDULES, who).rowcount
    kept = connection.execute(_KEPT, who).rowcount
    deliveries = connection.execute(_DELIVERIES, who).fetchone() or {}
    notifications = connection.execute(_NOTIFICATIONS, who).fetchone() or {}
    rejected = connection.execute(_REJECTED, who).rowcount
    inbox = connection.execute(_INBOX, who).rowcount
    gone, unsearched = _parked(connection, recipient_id, tenant)
    # Whoever is not there to be locked has no addresses. Those of somebody stored a moment later must not be touched
    # either: they would be locked before their person, and every other statement does it the other way about.
    known = connection.execute(_LOCK, who).fetchone() is not None
    addresses = _forget(connection, who) if known else 0
    return Erased(
        known=known,
        addresses=addresses,
        **deliveries,
        **notifications,
        inbox=inbox,
        calls=scheduled + kept + rejected,
        parked=gone,
        parked_unsearched=unsearched,
    )


def _forget(connection: Connection, who: dict[str, str]) -> int:
    """Delete the person and what hangs on them. Returns how many addresses there were."""
    connection.execute(_BEGUN, who)
    connection.execute(_ENDPOINTS, who)
    addresses = connection.execute(_POINTS, who).rowcount
    connection.execute(_PERSON, who)
    return addresses


# --- parked messages --------------------------------------------------------------------------------


def _parked(connection: Connection, recipient_id: str, tenant: str) -> tuple[int, int]:
    """Delete parked messages to this person alone. Returns how many, and how many may name them and stay."""
    gone: list[int] = []
    unsearched = 0
    with connection.cursor(name="parked") as cursor:
        cursor.itersize = _PARKED_PAGE
        cursor.execute("SELECT id, raw FROM notify.parked_message")
        for row in cursor:
            named = _names(bytes(row["raw"]), recipient_id, tenant)
            if named == "alone":
                gone.append(row["id"])
            unsearched += named in ("with others", "unknown")
    if gone:
        connection.execute("DELETE FROM notify.parked_message WHERE id = ANY(%s)", (gone,))
    return len(gone), unsearched


def _names(raw: bytes, recipient_id: str, tenant: str) -> str:
    """Whether a parked message names a person: `alone`, `with others`, `not`, or `unknown`."""
    try:
        found = json.loads(raw)
        # A call by itself, or in a Celery message; a wake-up has ids of deliveries and names nobody.
        envelopes = [found] if "message_id" in found else list(_arguments(found))
        named = [
            [entry.get("id") for entry in envelope["to"]]
            for envelope in envelopes
            if envelope.get("tenant") == tenant
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "unknown"
    ids = [id_ for call in named for id_ in call]
    if recipient_id not in ids:
        return "not"
    return "alone" if set(ids) == {recipient_id} else "with others"


def _arguments(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    body = message["body"]
    if message["properties"].get("body_encoding") == "base64":
        try:
            body = base64.b64decode(body, validate=True)
        except binascii.Error:
            raise ValueError("the body is no base64") from None
    args, *_ = json.loads(body)
    yield from (each for each in args if isinstance(each, dict))
