"""Webhook endpoints: their secrets, as they are encrypted, and how they fare. What comes here has been checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from notify_tasks.store.database import Connection, Database, Row

GONE: Final = "gone"
"""The reason of an endpoint that answered 410, or that a provider calls dead."""
FAILING: Final = "failing"
"""The reason of one that failed for longer than the setting allows."""
SILENCE_HOURS: Final = 48
"""After a failure and so long without another, the count begins anew: nothing was asked of the endpoint meanwhile.
Longer than the longest wait between two attempts of a delivery."""
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint that has secrets of its own, or has failed.

    Args:
        id: by which logs and lists name it: of its URL, which may hold secrets.
        url: where it is.
        signed: it has a secret of its own.
        previous_until: until then the secret before it signs as well, in UTC.
        failing_since: the first failure since the last success, in UTC.
        disabled_at: nothing is sent to it since then, in UTC.
        disabled_reason: `gone`, `failing`, or an operator's word.
        secret: `whsec_...`, where it was made just now; nothing else shows it.
    """

    id: str
    tenant: str
    url: str = field(repr=False)
    signed: bool
    previous_until: datetime | None
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    created_at: datetime
    updated_at: datetime
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Page:
    """Endpoints in the order of their ids. `next` is the `after` of the next page; None at the end."""

    endpoints: tuple[Endpoint, ...]
    next: str | None


_COLUMNS: Final = (
    "left(digest, 12) AS id, tenant, url, secret IS NOT NULL AS signed,"
    " CASE WHEN previous_until > now() THEN previous_until END AS previous_until,"
    " failing_since, disabled_at, disabled_reason, created_at, updated_at"
)
_BEHIND: Final = "g"
"""Stands behind each hexadecimal digit."""
# By its URL, or by an id: the first digits of its digest.
_WHICH: Final = """
 WHERE tenant = %(tenant)s AND (digest = md5(%(which)s) OR (%(which)s ~ '^[0-9a-f]{12,32}$'
       AND digest >= %(which)s AND digest < %(which)s || 'g'))
"""
_REGISTER = f"""
INSERT INTO notify.webhook_endpoint AS e (tenant, digest, url, secret)
VALUES (%(tenant)s, md5(%(which)s), %(which)s, %(secret)s)
ON CONFLICT (tenant, digest) DO UPDATE
   SET secret = excluded.secret, failing_since = NULL, failed_at = NULL, disabled_at = NULL, disabled_reason = NULL,
       updated_at = now()
 WHERE e.secret IS NULL
RETURNING {_COLUMNS}
"""  # noqa: S608 - all parts are ours
_ROTATE = f"""
UPDATE notify.webhook_endpoint
   SET previous_secret = CASE WHEN %(keep)s > 0 THEN secret END,
       previous_until = CASE WHEN %(keep)s > 0 THEN now() + make_interval(secs => %(keep)s) END,
       secret = %(secret)s, updated_at = now()
{_WHICH} AND secret IS NOT NULL
RETURNING {_COLUMNS}
"""  # noqa: S608 - as above
_DISABLE_BY_ID = f"""
UPDATE notify.webhook_endpoint SET disabled_at = coalesce(disabled_at, now()), disabled_reason = %(reason)s,
       updated_at = now()
{_WHICH}
RETURNING {_COLUMNS}
"""  # noqa: S608 - as above
_DISABLE = f"""
INSERT INTO notify.webhook_endpoint AS e (tenant, digest, url, disabled_at, disabled_reason)
VALUES (%(tenant)s, md5(%(which)s), %(which)s, now(), %(reason)s)
ON CONFLICT (tenant, digest) DO UPDATE
   SET disabled_at = coalesce(e.disabled_at, now()), disabled_reason = excluded.disabled_reason, updated_at = now()
RETURNING {_COLUMNS}
"""  # noqa: S608 - as above
_ENABLE = f"""
UPDATE notify.webhook_endpoint
   SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL, failed_at = NULL, updated_at = now()
{_WHICH}
RETURNING {_COLUMNS}
"""  # noqa: S608 - as above
_LIFT = """
DELETE FROM notify.suppression
 WHERE tenant = %(tenant)s AND channel = 'webhook' AND digest = md5(%(url)s) AND address = %(url)s
   AND reason = 'address_invalid'
"""
_AT = f"SELECT {_COLUMNS} FROM notify.webhook_endpoint {_WHICH}"  # noqa: S608 - as above
_FIND = f"""
SELECT {_COLUMNS} FROM notify.webhook_endpoint
 WHERE tenant = %(tenant)s AND digest >= %(after)s AND (NOT %(disabled)s OR disabled_at IS NOT NULL)
 ORDER BY digest LIMIT %(limit)s
"""  # noqa: S608 - as above


def register(database: Database, url: str, secret: bytes, *, tenant: str = "default") -> Endpoint | None:
    """Store an endpoint's first secret; what made it fail or disabled it is forgotten.

    Returns:
        it; None where it has a secret, which stays.
    """
    wanted = {"tenant": tenant, "which": url, "url": url, "secret": secret}

    def run(connection: Connection) -> Endpoint | None:
        found = _one(connection.execute(_REGISTER, wanted).fetchall())
        if found is not None:
            connection.execute(_LIFT, wanted)
        return found

    return database.transact(run)


def rotate(
    database: Database, which: str, secret: bytes, keep: float, *, tenant: str = "default"
) -> Endpoint | None:
    """Store a new secret; the one before it signs for `keep` seconds more.

    Returns:
        it; None where none of this name has a secret.
    """
    wanted = {"tenant": tenant, "which": which, "secret": secret, "keep": keep}
    return _one(database.rows(_ROTATE, wanted))


def disable(
    database: Database, which: str, reason: str, *, known: bool, tenant: str = "default"
) -> Endpoint | None:
    """Send nothing to an endpoint any more.

    Args:
        database: the store.
        which: its URL, or where it is `known` its id.
        reason: a word.
        known: only one that is stored.
        tenant: whose.

    Returns:
        it; None where it is not stored, and would have to be.
    """
    wanted = {"tenant": tenant, "which": which, "reason": reason}
    return _one(database.rows(_DISABLE_BY_ID if known else _DISABLE, wanted))


def enable(database: Database, which: str, *, tenant: str = "default") -> Endpoint | None:
    """Send to an endpoint again, and forget how it failed. None where it is not stored."""

    def run(connection: Connection) -> Endpoint | None:
        found = _one(connection.execute(_ENABLE, {"tenant": tenant, "which": which}).fetchall())
        if found is not None:
            connection.execute(_LIFT, {"tenant": tenant, "url": found.url})
        return found

    return database.transact(run)


def at(database: Database, which: str, *, tenant: str = "default") -> Endpoint | None:
    """One endpoint by its URL or id; None where it is not stored."""
    return _one(database.rows(_AT, {"tenant": tenant, "which": which}))


def find(
    database: Database,
    *,
    disabled: bool = False,
    after: str | None = None,
    limit: int = 100,
    tenant: str = "default",
) -> Page:
    """A page of endpoints.

    Args:
        database: the store.
        disabled: those alone.
        after: the id that the page before ended with.
        limit: how many at most.
        tenant: whose.
    """
    behind = f"{after}{_BEHIND}" if after else ""
    rows = database.rows(_FIND, {"tenant": tenant, "disabled": disabled, "after": behind, "limit": limit + 1})
    found = tuple(Endpoint(**row) for row in rows[:limit])
    return Page(found, found[-1].id if len(rows) > limit else None)


def _one(rows: list[Row]) -> Endpoint | None:
    return Endpoint(**rows[0]) if rows else None


_TOTALS = """
SELECT count(*) FILTER (WHERE secret IS NOT NULL) AS signed,
       count(*) FILTER (WHERE disabled_reason = ANY(%s) AND disabled_at > now() - make_interval(days => %s)) AS ended
  FROM notify.webhook_endpoint
"""


def totals(database: Database, *, days: int) -> tuple[int, int]:
    """How many endpoints have secrets, and how many were disabled by the fleet itself in the last `days`."""
    row = database.rows(_TOTALS, ([GONE, FAILING], days))[0]
    return row["signed"], row["ended"]


# --- another key ------------------------------------------------------------------------------------

_SECRETS = """
SELECT tenant, digest, secret, previous_secret FROM notify.webhook_endpoint
 WHERE (tenant, digest) > (%(tenant)s, %(digest)s) AND secret IS NOT NULL
 ORDER BY tenant, digest LIMIT %(limit)s FOR UPDATE
"""
_REWRITE = """
UPDATE notify.webhook_endpoint SET secret = %(secret)s, previous_secret = %(previous_secret)s
 WHERE tenant = %(tenant)s AND digest = %(digest)s
"""


def rewrite(database: Database, again: Callable[[bytes], bytes]) -> int:
    """Encrypt every secret anew, a page in a transaction. Returns how many endpoints it was."""
    place = {"tenant": "", "digest": ""}
    total = 0

    def run(connection: Connection) -> list[Row]:
        rows = connection.execute(_SECRETS, {**place, "limit": _PAGE}).fetchall()
        for row in rows:
            for name in ("secret", "previous_secret"):
                row[name] = None if row[name] is None else again(bytes(row[name]))
            connection.execute(_REWRITE, row)
        return rows

    while rows := database.transact(run):
        total += len(rows)
        place = {"tenant": rows[-1]["tenant"], "digest": rows[-1]["digest"]}
    return total


# --- what a worker asks and tells -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """What a worker must know before it sends: nothing at all of most endpoints.

    Args:
        secrets: encrypted, the newest first, those that sign now.
        disabled: nothing is sent to it.
        failing: it has failed since its last success.
    """

    secrets: tuple[bytes, ...] = field(default=(), repr=False)
    disabled: bool = False
    failing: bool = False


_STANDING = """
SELECT secret, CASE WHEN previous_until > now() THEN previous_secret END AS previous,
       disabled_at IS NOT NULL AS disabled, failing_since IS NOT NULL AS failing
  FROM notify.webhook_endpoint WHERE tenant = %s AND digest = md5(%s)
"""
_FAILED = """
INSERT INTO notify.webhook_endpoint AS e (tenant, digest, url, failing_since, failed_at)
VALUES (%(tenant)s, md5(%(url)s), %(url)s, now(), now())
ON CONFLICT (tenant, digest) DO UPDATE
   SET failed_at = now(), updated_at = now(),
       failing_since = CASE WHEN e.failed_at < now() - make_interval(hours => %(silence)s) THEN now()
                            ELSE coalesce(e.failing_since, now()) END,
       disabled_at = CASE WHEN e.disabled_at IS NULL AND e.failing_since < now() - make_interval(secs => %(most)s)
                               AND e.failed_at >= now() - make_interval(hours => %(silence)s) THEN now()
                          ELSE e.disabled_at END,
       disabled_reason = CASE WHEN e.disabled_at IS NULL AND e.failing_since < now() - make_interval(secs => %(most)s)
                                   AND e.failed_at >= now() - make_interval(hours => %(silence)s) THEN %(reason)s
                              ELSE e.disabled_reason END
RETURNING left(digest, 12) AS id, disabled_at = now() AS disabled
"""
_GONE = """
INSERT INTO notify.webhook_endpoint AS e (tenant, digest, url, disabled_at, disabled_reason)
VALUES (%(tenant)s, md5(%(url)s), %(url)s, now(), %(reason)s)
ON CONFLICT (tenant, digest) DO UPDATE
   SET disabled_at = now(), disabled_reason = excluded.disabled_reason, updated_at = now()
 WHERE e.disabled_at IS NULL
RETURNING left(digest, 12) AS id
"""
_WELL = """
UPDATE notify.webhook_endpoint SET failing_since = NULL, failed_at = NULL, updated_at = now()
 WHERE tenant = %s AND digest = md5(%s) AND failing_since IS NOT NULL
"""


def standing(database: Database, tenant: str, url: str) -> Standing:
    """What is known of an endpoint."""
    rows = database.rows(_STANDING, (tenant, url))
    if not rows:
        return Standing()
    row = rows[0]
    secrets = tuple(bytes(each) for each in (row["secret"], row["previous"]) if each is not None)
    return Standing(secrets, row["disabled"], row["failing"])


def failed(database: Database, tenant: str, url: str, most: float) -> str | None:
    """Note a failure. Returns the endpoint's id where it has failed for `most` seconds, and is disabled by this one."""
    wanted = {"tenant": tenant, "url": url, "most": most, "silence": SILENCE_HOURS, "reason": FAILING}
    row = database.rows(_FAILED, wanted)[0]
    return str(row["id"]) if row["disabled"] else None


def gone(database: Database, tenant: str, url: str) -> str | None:
    """Note that an endpoint is gone for good. Returns its id where it is disabled by this."""
    rows = database.rows(_GONE, {"tenant": tenant, "url": url, "reason": GONE})
    return str(rows[0]["id"]) if rows else None


def well(database: Database, tenant: str, url: str) -> None:
    """Note that a failing endpoint took a message."""
    database.rows(_WELL, (tenant, url))
