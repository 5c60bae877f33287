"""Devices: the contact points of `push` and `webpush`. What comes here has been checked (`contacts`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from notify_tasks.store.database import Connection, Database, Row
from notify_tasks.store.recipients import TOUCH

MAX_DEVICES: Final = 20
"""Of one person on one channel; the one seen longest ago gives way."""
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Device:
    """A person's device.

    Args:
        channel: `push` or `webpush`.
        address: its token, or its subscription as JSON.
        platform: `android`, `ios`, `web` or another word; None where nobody said.
        label: what its owner calls it.
        created_at: when it was stored first, in UTC.
        last_seen_at: when its app last told the token, in UTC; None where it never did (`people`, or a call, brought
            it).
    """

    recipient_id: str
    tenant: str
    channel: str
    address: str = field(repr=False)
    platform: str | None
    label: str | None = field(repr=False)
    created_at: datetime
    last_seen_at: datetime | None


_COLUMNS: Final = "recipient_id, tenant, channel, address, platform, label, created_at, last_seen_at"
_OTHERS = """
DELETE FROM notify.contact_point
 WHERE tenant = %(tenant)s AND channel = %(channel)s AND channel IN ('push', 'webpush')
   AND digest = md5(%(address)s) AND address = %(address)s AND recipient_id <> %(id)s
"""
_PUT = f"""
INSERT INTO notify.contact_point AS c
    (tenant, recipient_id, channel, address, platform, label, verified_at, last_seen_at)
VALUES (%(tenant)s, %(id)s, %(channel)s, %(address)s, %(platform)s, %(label)s, now(), now())
ON CONFLICT (tenant, recipient_id, channel, digest) DO UPDATE
   SET platform = coalesce(excluded.platform, c.platform), label = coalesce(excluded.label, c.label),
       verified_at = coalesce(c.verified_at, now()), last_seen_at = now()
RETURNING {_COLUMNS}
"""  # noqa: S608 - all parts are ours
_GIVE_WAY = """
DELETE FROM notify.contact_point c USING (
    SELECT tenant, recipient_id, channel, digest FROM notify.contact_point
     WHERE tenant = %(tenant)s AND recipient_id = %(id)s AND channel = %(channel)s
     ORDER BY digest = md5(%(address)s) DESC, coalesce(last_seen_at, created_at) DESC, digest OFFSET %(most)s) old
 WHERE c.tenant = old.tenant AND c.recipient_id = old.recipient_id AND c.channel = old.channel
   AND c.digest = old.digest
"""
_LIFT = """
DELETE FROM notify.suppression
 WHERE tenant IN (%(tenant)s, '*')  -- '*': for every tenant
   AND channel = %(channel)s AND digest = md5(%(address)s) AND address = %(address)s AND reason = 'address_invalid'
"""
_SEEN = """
UPDATE notify.contact_point SET last_seen_at = now()
 WHERE tenant = %(tenant)s AND recipient_id = %(id)s AND channel = %(channel)s AND digest = md5(%(address)s)
RETURNING 1 AS one
"""
_REMOVE = """
DELETE FROM notify.contact_point
 WHERE tenant = %(tenant)s AND recipient_id = %(id)s AND channel = %(channel)s AND digest = md5(%(address)s)
RETURNING 1 AS one
"""
_FIND = f"""
SELECT {_COLUMNS} FROM notify.contact_point
 WHERE tenant = %(tenant)s AND recipient_id = %(id)s AND channel IN ('push', 'webpush')
 ORDER BY coalesce(last_seen_at, created_at) DESC, channel, digest
"""  # noqa: S608 - as above
# In the order of the key, each page after the one before, so that the table is read once.
_PRUNE = """
WITH page AS MATERIALIZED (
    SELECT tenant, recipient_id, channel, digest FROM notify.contact_point
     WHERE tenant = %(tenant)s AND channel IN ('push', 'webpush')
       AND (recipient_id, channel, digest) > (%(id)s, %(channel)s, %(digest)s)
       AND last_seen_at < now() - make_interval(secs => %(seconds)s)
     ORDER BY recipient_id, channel, digest LIMIT %(limit)s),
gone AS (
    DELETE FROM notify.contact_point c USING page p
     WHERE c.tenant = p.tenant AND c.recipient_id = p.recipient_id AND c.channel = p.channel AND c.digest = p.digest
       AND c.last_seen_at < now() - make_interval(secs => %(seconds)s)
    RETURNING 1)
SELECT recipient_id AS id, channel, digest, (SELECT count(*) FROM gone) AS gone FROM page
 ORDER BY recipient_id DESC, channel DESC, digest DESC LIMIT 1
"""


def register(
    database: Database,
    recipient_id: str,
    channel: str,
    address: str,
    *,
    platform: str | None = None,
    label: str | None = None,
    tenant: str = "default",
) -> Device:
    """Store a device, seen now, in one transaction: it is this person's and nobody else's."""
    wanted = {
        "tenant": tenant,
        "id": recipient_id,
        "channel": channel,
        "address": address,
        "platform": platform,
        "label": label,
        "most": MAX_DEVICES,
    }

    def run(connection: Connection) -> Device:
        # Locks the person: of two devices at once, the second counts the first.
        connection.execute(TOUCH, wanted)
        connection.execute(_OTHERS, wanted)
        (row,) = connection.execute(_PUT, wanted).fetchall()
        connection.execute(_GIVE_WAY, wanted)
        connection.execute(_LIFT, wanted)
        return _device(row)

    return database.transact(run)


def seen(
    database: Database, recipient_id: str, channel: str, address: str, *, tenant: str = "default"
) -> bool:
    """Note that a device's app told its token now. False where it is none of this person's."""
    wanted = {"tenant": tenant, "id": recipient_id, "channel": channel, "address": address}
    return bool(database.rows(_SEEN, wanted))


def remove(
    database: Database, recipient_id: str, channel: str, address: str, *, tenant: str = "default"
) -> bool:
    """Remove a device. False where it is none of this person's."""
    wanted = {"tenant": tenant, "id": recipient_id, "channel": channel, "address": address}
    return bool(database.rows(_REMOVE, wanted))


def find(database: Database, recipient_id: str, *, tenant: str = "default") -> tuple[Device, ...]:
    """A person's devices, the one seen last first."""
    return tuple(_device(row) for row in database.rows(_FIND, {"tenant": tenant, "id": recipient_id}))


def prune(database: Database, seconds: float, *, tenant: str = "default") -> int:
    """Remove the devices that were seen last before so many seconds, and return how many."""
    total = 0
    place = {"id": "", "channel": "", "digest": ""}
    while True:
        wanted = {"tenant": tenant, "seconds": seconds, "limit": _PAGE, **place}
        rows = database.rows(_PRUNE, wanted)
        if not rows:
            return total
        total += rows[0].pop("gone")
        place = rows[0]


def _device(row: Row) -> Device:
    return Device(**row)
