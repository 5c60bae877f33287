"""What is known of a call, for whoever asks why: its status, and what decided about it. Nothing of its content."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from notify_tasks.store import statuses
from notify_tasks.store.database import Database, jsonb
from notify_tasks.store.statuses import DeliveryStatus, Found, Status

VERSIONS: Final = 100
"""Of one person's preferences, at most."""
_WISHES: Final = (
    "preference_off",
    "quiet_hours",
    "vacation",
    "expires_in_quiet_hours",
    "expires_in_vacation",
)


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A suppression that holds for a delivery's address now.

    Args:
        everywhere: it holds for every tenant.
    """

    reason: str
    source: str
    since: datetime
    everywhere: bool


@dataclass(frozen=True, slots=True)
class More:
    """What a delivery's status does not tell.

    Args:
        category: what its person may switch off; None where they may not.
        opt_in: its type goes to those alone who have switched it on.
        suppressed: what holds for its address now.
        digest_due: when the digest is due that it waits for; None where it waits for none.
        digest_events: how many wait for that one.
    """

    category: str | None
    opt_in: bool
    timezone: str | None
    suppressed: Suppressed | None
    digest_due: datetime | None = None
    digest_events: int | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a person's preferences, with everything chosen in it."""

    version: int
    settings: Mapping[str, Any] = field(repr=False)
    changed_by: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Kept:
    """A call in the table `intake`: stored, and not planned yet."""

    event_type: str
    origin: str
    since: datetime
    due_at: datetime
    tries: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about one message id.

    Args:
        recipient_id: of whom is asked; None for everybody.
        left_out: ids of recipients of an accepted call that got no delivery, by its notification, and their places.
        more: by delivery.
        versions: by recipient, newest first; of those alone whose wishes have decided something.
        members: of a digest, the message ids of what went out in it, newest first, up to a hundred.
    """

    message_id: str
    tenant: str
    found: Found
    recipient_id: str | None = None
    kept: tuple[Kept, ...] = ()
    left_out: Mapping[uuid.UUID, Mapping[int, str]] = field(default_factory=dict)
    more: Mapping[uuid.UUID, More] = field(default_factory=dict)
    versions: Mapping[str, tuple[Version, ...]] = field(default_factory=dict)
    members: tuple[str, ...] = ()


_KEPT: Final = """
SELECT envelope ->> 'event_type' AS event_type, origin, created_at AS since, due_at, tries
  FROM notify.intake WHERE tenant = %s AND message_id = %s ORDER BY created_at
"""
_MORE: Final = """
SELECT d.id, d.category, d.opt_in, d.timezone, s.reason, s.source, s.created_at AS since, s.tenant = '*' AS everywhere,
       g.due_at AS digest_due, g.events + g.opening AS digest_events
  FROM notify.delivery d
  LEFT JOIN notify.digest g ON g.id = d.digest_id AND g.state <> 'closed' AND d.state = 'held'
  LEFT JOIN LATERAL (
      SELECT x.reason, x.source, x.created_at, x.tenant FROM notify.suppression x
       WHERE x.tenant IN (d.tenant, '*') AND x.channel = d.channel AND d.address <> ''
         AND x.digest = md5(d.address) AND x.address = d.address
       ORDER BY x.created_at LIMIT 1) s ON true
 WHERE d.notification_id = ANY(%s)
"""
_LEFT_OUT: Final = """
SELECT n.id, e ->> 'id' AS recipient_id, (e ->> 'place')::int AS place
  FROM notify.notification n CROSS JOIN LATERAL jsonb_array_elements(n.envelope -> 'to') AS e
 WHERE n.id = ANY(%s) AND n.state = 'accepted' AND jsonb_typeof(n.envelope -> 'to') = 'array' AND e ? 'place'
"""
_MEMBERS: Final = """
SELECT d.message_id FROM notify.delivery d
 WHERE d.digest_id = %s AND d.tenant = %s AND d.state = 'digested'
 GROUP BY d.message_id ORDER BY max(d.created_at) DESC LIMIT 100
"""
_VERSIONS: Final = """
SELECT r.id AS recipient_id, c.version, c.settings, c.changed_by, c.changed_at
  FROM unnest(%s::text[]) AS r(id) CROSS JOIN LATERAL (
      SELECT version, settings, changed_by, changed_at FROM notify.preference_change
       WHERE tenant = %s AND recipient_id = r.id ORDER BY version DESC LIMIT %s) c
 ORDER BY r.id, c.version DESC
"""


def of_message(database: Database, message_id: str, *, tenant: str) -> Facts | None:
    """What is known of a message id; None where nothing is."""
    found = statuses.read(database, message_id, tenant=tenant)
    kept = tuple(Kept(**row) for row in database.rows(_KEPT, (tenant, message_id)))
    if not (found.notifications or kept or found.cancelled_at or found.schedule):
        return None
    ids = [status.id for status in found.notifications]
    facts = Facts(message_id, tenant, found, kept=kept)
    if not ids:
        return facts
    left_out: dict[uuid.UUID, dict[int, str]] = {}
    for row in database.rows(_LEFT_OUT, (ids,)):
        left_out.setdefault(row["id"], {})[row["place"]] = row["recipient_id"]
    return replace(
        facts,
        left_out=left_out,
        more={row["id"]: _more(row) for row in database.rows(_MORE, (ids,))},
        versions=_versions(database, found.notifications, tenant),
        members=_members(database, message_id, tenant),
    )


def _members(database: Database, message_id: str, tenant: str) -> tuple[str, ...]:
    kind, _, number = message_id.partition("-")
    try:
        id_ = uuid.UUID(number) if kind == "digest" else None
    except ValueError:
        id_ = None
    if id_ is None:
        return ()
    return tuple(row["message_id"] for row in database.rows(_MEMBERS, (id_, tenant)))


def _more(row: Mapping[str, Any]) -> More:
    suppressed = None
    if row["reason"] is not None:
        suppressed = Suppressed(row["reason"], row["source"], row["since"], row["everywhere"])
    due, events = row["digest_due"], row["digest_events"]
    return More(row["category"], row["opt_in"], row["timezone"], suppressed, due, events)


def _versions(
    database: Database, notifications: Iterable[Status], tenant: str
) -> dict[str, tuple[Version, ...]]:
    asked = {
        it.recipient_id
        for status in notifications
        for it in status.deliveries
        if it.recipient_id is not None and _wished(status, it)
    }
    versions: dict[str, tuple[Version, ...]] = {}
    for row in database.rows(_VERSIONS, (sorted(asked), tenant, VERSIONS)) if asked else []:
        whose = row.pop("recipient_id")
        versions[whose] = (*versions.get(whose, ()), Version(**row))
    return versions


def _wished(status: Status, delivery: DeliveryStatus) -> bool:
    if delivery.reason in _WISHES:
        return True
    planned = status.plan.get("decisions", ())
    return any(code in _WISHES for each in planned for code in (each.get("reason"), *each.get("reasons", ())))


# --- one person ---------------------------------------------------------------------------------------

_TO_PERSON: Final = """
WITH stored AS (
    SELECT message_id, max(created_at) AS at FROM notify.delivery
     WHERE tenant = %(tenant)s AND recipient_id = %(id)s AND created_at >= %(since)s
       AND (%(type)s::text IS NULL OR event_type = %(type)s)
     GROUP BY message_id),
without AS (
    SELECT message_id, accepted_at AS at FROM notify.notification
     WHERE envelope IS NOT NULL AND envelope -> 'to' @> %(to)s::jsonb AND tenant = %(tenant)s
       AND accepted_at >= %(since)s AND (%(type)s::text IS NULL OR event_type = %(type)s)),
kept AS (
    SELECT message_id, created_at AS at FROM notify.intake
     WHERE tenant = %(tenant)s AND envelope -> 'to' @> %(to)s::jsonb
       AND (%(type)s::text IS NULL OR envelope ->> 'event_type' = %(type)s))
SELECT message_id, max(at) AS at
  FROM (SELECT * FROM stored UNION ALL SELECT * FROM without UNION ALL SELECT * FROM kept) a
 GROUP BY message_id ORDER BY at DESC, message_id LIMIT %(limit)s
"""


def of_recipient(
    database: Database,
    recipient_id: str,
    *,
    event_type: str | None,
    since: datetime,
    limit: int,
    tenant: str,
) -> list[Facts]:
    """What is known of the calls to a person, newest first: stored, rejected, left out of one, and not planned yet.

    Args:
        database: the store.
        recipient_id: the person's id.
        event_type: only of this type.
        since: nothing before.
        limit: calls at most.
        tenant: whose the person is.
    """
    wanted = {
        "tenant": tenant,
        "id": recipient_id,
        "since": since,
        "type": event_type,
        "to": jsonb([{"id": recipient_id}]),
        "limit": limit,
    }
    found = [
        of_message(database, row["message_id"], tenant=tenant) for row in database.rows(_TO_PERSON, wanted)
    ]
    return [replace(facts, recipient_id=recipient_id) for facts in found if facts is not None]
