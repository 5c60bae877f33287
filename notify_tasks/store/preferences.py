"""What people have chosen, with every version there was. What comes here has been checked (`preferences`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from notify_tasks.store.database import Connection, Database, Row, jsonb

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """A person's preferences as they were stored at some time.

    Args:
        version: counts from 1; 0 where nothing was ever chosen.
        settings: what was chosen (`choices`).
        changed_by: who changed it, in their own word.
        changed_at: in UTC; None for version 0.
    """

    recipient_id: str
    tenant: str
    version: int
    settings: Settings = field(default_factory=dict)
    changed_by: str = ""
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What a change did. `now` is None where there is no such person.

    Args:
        changed: False where the stored version was not the one that was expected, or nothing was different.
    """

    now: Version | None
    changed: bool = False


_READ: Final = """
SELECT r.id AS recipient_id, r.tenant, coalesce(p.version, 0) AS version, coalesce(p.settings, '{}') AS settings,
       coalesce(p.changed_by, '') AS changed_by, p.updated_at AS changed_at
  FROM notify.recipient r LEFT JOIN notify.preference p ON p.tenant = r.tenant AND p.recipient_id = r.id
 WHERE r.tenant = %(tenant)s AND r.id = %(id)s
"""
# The person's row is locked by itself, so that the statement after it sees what the one before has stored.
_LOCK: Final = """
SELECT 1 AS one FROM notify.recipient WHERE tenant = %(tenant)s AND id = %(id)s FOR NO KEY UPDATE
"""
_WRITE: Final = """
WITH made AS (
    INSERT INTO notify.preference AS p (tenant, recipient_id, version, settings, changed_by)
    VALUES (%(tenant)s, %(id)s, %(version)s, %(settings)s::jsonb, %(by)s)
    ON CONFLICT (tenant, recipient_id) DO UPDATE
       SET version = excluded.version, settings = excluded.settings, changed_by = excluded.changed_by,
           updated_at = now()
    RETURNING *)
INSERT INTO notify.preference_change (tenant, recipient_id, version, settings, changed_by, changed_at)
SELECT tenant, recipient_id, version, settings, changed_by, updated_at FROM made
RETURNING recipient_id, tenant, version, settings, changed_by, changed_at
"""
_HISTORY: Final = """
SELECT recipient_id, tenant, version, settings, changed_by, changed_at FROM notify.preference_change
 WHERE tenant = %(tenant)s AND recipient_id = %(id)s AND version < %(before)s
 ORDER BY version DESC LIMIT %(limit)s
"""


def get(database: Database, recipient_id: str, *, tenant: str = "default") -> Version | None:
    """What a person has chosen; None where there is no such person."""
    rows = database.rows(_READ, {"tenant": tenant, "id": recipient_id})
    return _version(rows[0]) if rows else None


def change(
    database: Database,
    recipient_id: str,
    make: Callable[[Settings], Settings],
    *,
    by: str,
    if_version: int | None = None,
    tenant: str = "default",
) -> Stored:
    """Make a new version of the one that is stored; none where it would be the same.

    Args:
        database: the store.
        recipient_id: whose.
        make: the new settings from the present ones. It may be called again.
        by: who changes it.
        if_version: only where this is the version that is stored.
        tenant: whose the person is.
    """

    def run(connection: Connection) -> Stored:
        who: dict[str, Any] = {"tenant": tenant, "id": recipient_id}
        if connection.execute(_LOCK, who).fetchone() is None:
            return Stored(None)
        (row,) = connection.execute(_READ, who).fetchall()
        present = _version(row)
        settings = make(present.settings)
        if if_version not in (None, present.version) or settings == present.settings:
            return Stored(present)
        wanted = who | {"version": present.version + 1, "settings": jsonb(settings), "by": by}
        (made,) = connection.execute(_WRITE, wanted).fetchall()
        return Stored(_version(made), changed=True)

    return database.transact(run)


def history(
    database: Database, recipient_id: str, *, before: int, limit: int, tenant: str = "default"
) -> tuple[Version, ...]:
    """The versions below `before` that there were, newest first."""
    wanted = {"tenant": tenant, "id": recipient_id, "before": before, "limit": limit}
    return tuple(_version(row) for row in database.rows(_HISTORY, wanted))


def _version(row: Row) -> Version:
    return Version(**row)
