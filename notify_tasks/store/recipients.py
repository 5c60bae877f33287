"""Recipients and their contact points. What comes here has been checked (`contacts`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final

from notify_tasks.store.database import Connection, Database, Row, jsonb
from notify_tasks.store.suppressions import suppress

__all__ = ["KEEP", "ContactPoint", "Keep", "Page", "Person", "find", "get", "suppress", "upsert"]


class Keep(Enum):
    """The value of what is not to be changed."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


@dataclass(frozen=True, slots=True)
class ContactPoint:
    """One address of a recipient, with what is known of it.

    Args:
        verified_at: when the person proved that it is theirs, in UTC; None where they have not.
        last_seen_at: of a device, when its app last told its token, in UTC.
        platform: of a device: `android`, `ios`, `web` or another word.
        label: of a device, what its owner calls it.
    """

    channel: str
    address: str = field(repr=False)
    verified_at: datetime | None = None
    last_seen_at: datetime | None = None
    platform: str | None = None
    label: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Person:
    """A recipient as stored.

    Args:
        addresses: by channel, oldest first; webpush subscriptions are JSON.
        points: the same, each with what is known of it.
        locale: a language tag (BCP 47).
        timezone: an IANA name.
        created_at: in UTC, as `updated_at`.
    """

    id: str
    tenant: str
    locale: str | None
    timezone: str | None
    created_at: datetime
    updated_at: datetime
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    points: tuple[ContactPoint, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """Recipients in the order of their ids' bytes. `next` is the `after` of the next page; None at the end."""

    people: tuple[Person, ...]
    next: str | None


# The row is locked here, and what follows is a statement of its own: so it sees what another one, which held the lock
# before, has stored.
TOUCH: Final = """
INSERT INTO notify.recipient AS r (tenant, id) VALUES (%(tenant)s, %(id)s)
ON CONFLICT (tenant, id) DO UPDATE SET updated_at = now()
"""
_PERSON = """
INSERT INTO notify.recipient AS r (tenant, id, locale, timezone) VALUES (%(tenant)s, %(id)s, %(locale)s, %(timezone)s)
ON CONFLICT (tenant, id) DO UPDATE
   SET locale = CASE WHEN %(keep_locale)s THEN r.locale ELSE excluded.locale END,
       timezone = CASE WHEN %(keep_timezone)s THEN r.timezone ELSE excluded.timezone END,
       updated_at = now()
"""
_REPLACE = """
WITH p AS MATERIALIZED (SELECT * FROM jsonb_to_recordset(%(points)s::jsonb) AS x(n int, channel text, address text)),
gone AS (
    DELETE FROM notify.contact_point c
     WHERE c.tenant = %(tenant)s AND c.recipient_id = %(id)s AND c.channel = ANY(%(channels)s)
       AND NOT EXISTS (SELECT 1 FROM p WHERE p.channel = c.channel AND p.address = c.address))
INSERT INTO notify.contact_point (tenant, recipient_id, channel, address, created_at)
SELECT %(tenant)s, %(id)s, channel, address, now() + make_interval(secs => n * 1e-6) FROM p ORDER BY n
ON CONFLICT DO NOTHING
"""
_READ = """
SELECT r.id, r.tenant, r.locale, r.timezone, r.created_at, r.updated_at, coalesce(c.points, '[]') AS points
  FROM notify.recipient r
  LEFT JOIN LATERAL (
      SELECT jsonb_agg(jsonb_build_object(
                 'channel', channel, 'address', address, 'verified_at', verified_at, 'last_seen_at', last_seen_at,
                 'platform', platform, 'label', label) ORDER BY channel, created_at, address) AS points
        FROM notify.contact_point WHERE tenant = r.tenant AND recipient_id = r.id) c ON true
"""
_ONE = _READ + " WHERE r.tenant = %(tenant)s AND r.id = %(id)s"
_FIND = f"""{_READ}
 WHERE r.tenant = %(tenant)s AND r.id COLLATE "C" > %(after)s
   AND r.id COLLATE "C" >= %(prefix)s AND r.id COLLATE "C" < %(prefix)s || chr(1114111)
   AND (%(channel)s::text IS NULL OR EXISTS (
       SELECT 1 FROM notify.contact_point p
        WHERE p.tenant = r.tenant AND p.recipient_id = r.id AND p.channel = %(channel)s))
 ORDER BY r.id COLLATE "C" LIMIT %(limit)s
"""  # noqa: S608 - both parts are ours


def upsert(
    database: Database,
    recipient_id: str,
    addresses: Mapping[str, str | Sequence[str]],
    *,
    tenant: str = "default",
    locale: str | Keep | None = KEEP,
    timezone: str | Keep | None = KEEP,
) -> Person:
    """Store a recipient. The addresses of each channel named replace those it had there; an empty list removes them."""
    lists = {name: [it] if isinstance(it, str) else list(dict.fromkeys(it)) for name, it in addresses.items()}
    points = [{"channel": name, "address": it} for name, found in lists.items() for it in found]
    about = {
        "tenant": tenant,
        "id": recipient_id,
        "locale": None if locale is KEEP else locale,
        "timezone": None if timezone is KEEP else timezone,
        "keep_locale": locale is KEEP,
        "keep_timezone": timezone is KEEP,
    }

    def run(connection: Connection) -> Person:
        connection.execute(_PERSON, about)
        if lists:
            numbered = jsonb([{"n": n, **point} for n, point in enumerate(points)])
            connection.execute(_REPLACE, about | {"points": numbered, "channels": list(lists)})
        (row,) = connection.execute(_ONE, about).fetchall()
        return _person(row)

    return database.transact(run)


def get(database: Database, recipient_id: str, *, tenant: str = "default") -> Person | None:
    """One recipient; None where there is none of this id."""
    rows = database.rows(_ONE, {"tenant": tenant, "id": recipient_id})
    return _person(rows[0]) if rows else None


def find(
    database: Database,
    *,
    prefix: str = "",
    channel: str | None = None,
    after: str = "",
    limit: int = 100,
    tenant: str = "default",
) -> Page:
    """A page of recipients.

    Args:
        database: the store.
        prefix: how their ids begin.
        channel: only those with an address there.
        after: the id that the page before ended with.
        limit: how many at most.
        tenant: whose.
    """
    wanted = {"prefix": prefix, "channel": channel, "after": after, "limit": limit + 1, "tenant": tenant}
    people = tuple(_person(row) for row in database.rows(_FIND, wanted))
    more = len(people) > limit
    return Page(people[:limit], people[limit - 1].id if more else None)


def _person(row: Row) -> Person:
    points = tuple(_point(each) for each in row.pop("points"))
    addresses: dict[str, tuple[str, ...]] = {}
    for point in sorted(points, key=lambda it: it.channel):
        addresses[point.channel] = (*addresses.get(point.channel, ()), point.address)
    return Person(**row, addresses=addresses, points=points)


def _point(found: dict[str, Any]) -> ContactPoint:
    for name in ("verified_at", "last_seen_at"):  # in JSON a time is a text
        if found[name] is not None:
            found[name] = datetime.fromisoformat(found[name])
    return ContactPoint(**found)
