"""Addresses that nothing is sent to any more. What comes here has been checked (`contacts`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from notify_tasks.store.database import Connection, Database, Row

OPTED_OUT: Final = "opted_out"
"""The reason of those where the person said stop. It outlasts every other."""
COMPLAINED: Final = "complained"
"""The reason of those where the person called a message spam."""
SAID: Final = (OPTED_OUT, COMPLAINED)
"""Reasons that only the person can take back."""
_NEWEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Suppression:
    """A suppressed address.

    Args:
        id: a number that grows, by which lists are paged.
        tenant: whose it is; `*` where it holds for all of them, as a stop does that was said to a shared number.
        channel: where nothing is sent to it; other channels are free to.
        reason: `address_invalid`, `opted_out` and `complained` come from providers.
        source: who said so: `provider`, `receipts:<provider>`, `operator` or another.
        created_at: in UTC.
    """

    id: int
    tenant: str
    channel: str
    address: str = field(repr=False)
    reason: str
    source: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """Suppressed addresses, newest first. `next` is the `after` of the next page; None at the end."""

    suppressions: tuple[Suppression, ...]
    next: int | None


_COLUMNS: Final = "id, tenant, channel, address, reason, source, created_at"
_SUPPRESS = f"""
INSERT INTO notify.suppression AS s (tenant, channel, address, reason, source)
VALUES (%(tenant)s, %(channel)s, %(address)s, %(reason)s, %(source)s)
ON CONFLICT (tenant, channel, digest) DO UPDATE
   SET reason = CASE WHEN excluded.reason = 'opted_out' THEN excluded.reason ELSE s.reason END,
       source = CASE WHEN excluded.reason = 'opted_out' AND s.reason <> 'opted_out' THEN excluded.source
                     ELSE s.source END
RETURNING {_COLUMNS}
"""  # noqa: S608 - all parts are ours
# Two ways down the same index, each in its order.
_FIND = f"""
(SELECT {_COLUMNS} FROM notify.suppression
  WHERE tenant = %(tenant)s AND id < %(after)s AND (%(channel)s::text IS NULL OR channel = %(channel)s)
  ORDER BY id DESC LIMIT %(limit)s)
UNION ALL
(SELECT {_COLUMNS} FROM notify.suppression
  WHERE tenant = '*' AND %(tenant)s <> '*' AND id < %(after)s
    AND (%(channel)s::text IS NULL OR channel = %(channel)s)
  ORDER BY id DESC LIMIT %(limit)s)
 ORDER BY id DESC LIMIT %(limit)s
"""  # noqa: S608 - as above
_AT = f"""
SELECT {_COLUMNS} FROM notify.suppression
 WHERE tenant = %(tenant)s AND channel = %(channel)s AND digest = md5(%(address)s) AND address = %(address)s
"""  # noqa: S608 - as above
_LIFT = "DELETE FROM notify.suppression WHERE tenant = %s AND id = %s"


def suppress(
    database: Database,
    channel: str,
    address: str,
    *,
    reason: str,
    source: str = "operator",
    tenant: str = "default",
) -> Suppression:
    """Write to this address no more. Deliveries that wait are stopped when they are claimed.

    One that is suppressed keeps its reason, unless the new one is that the person said stop: a dead address may be
    tried again, and that person may not.

    Returns:
        the suppression as it is stored now.
    """
    wanted = {"tenant": tenant, "channel": channel, "address": address, "reason": reason, "source": source}
    (row,) = database.rows(_SUPPRESS, wanted)
    return _suppression(row)


def find(
    database: Database,
    *,
    channel: str | None = None,
    after: int | None = None,
    limit: int = 100,
    tenant: str = "default",
) -> Page:
    """A page of suppressed addresses.

    Args:
        database: the store.
        channel: only those of this one.
        after: the id that the page before ended with.
        limit: how many at most.
        tenant: whose; with those that hold for every tenant.
    """
    wanted = {
        "channel": channel,
        "after": _NEWEST if after is None else after,
        "limit": limit + 1,
        "tenant": tenant,
    }
    found = tuple(_suppression(row) for row in database.rows(_FIND, wanted))
    return Page(found[:limit], found[limit - 1].id if len(found) > limit else None)


def at(database: Database, channel: str, address: str, *, tenant: str = "default") -> Suppression | None:
    """The suppression of one address; None where there is none."""
    rows = database.rows(_AT, {"tenant": tenant, "channel": channel, "address": address})
    return _suppression(rows[0]) if rows else None


def lift(
    database: Database, channel: str, address: str, *, opted_out: bool = False, tenant: str = "default"
) -> tuple[Suppression | None, bool]:
    """Write to this address again, from the next notification on.

    Args:
        database: the store.
        channel: where.
        address: in its stored form.
        opted_out: lift it even where the person said stop.
        tenant: whose.

    Returns:
        what was found, None where nothing was suppressed; and whether it is lifted.
    """
    wanted = {"tenant": tenant, "channel": channel, "address": address}

    def run(connection: Connection) -> tuple[Suppression | None, bool]:
        # Locked, so that an opt-out that comes at this moment is seen, or comes after and stands.
        row = connection.execute(f"{_AT} FOR UPDATE", wanted).fetchone()
        if row is None:
            return None, False
        found = _suppression(row)
        if found.reason in SAID and not opted_out:
            return found, False
        connection.execute(_LIFT, (tenant, found.id))
        return found, True

    return database.transact(run)


def _suppression(row: Row) -> Suppression:
    return Suppression(**row)
