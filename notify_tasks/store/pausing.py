"""Pauses: what an operator has stopped, by whom and why, and how much waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from notify_tasks.store.database import Database, storable

KINDS: Final = ("queue", "type", "tenant")
COUNTED: Final = 10_000
"""Rows that are counted at most."""


@dataclass(frozen=True, slots=True)
class Pause:
    """One pause.

    Args:
        kind: `queue`, `type` or `tenant`.
        by: `user@host`; None where it was not said.
        since: UTC.
        held: deliveries that wait for its end, counted up to `COUNTED`.
        expiring: those of them that expire within the next hour.
    """

    kind: str
    name: str
    reason: str
    by: str | None
    since: datetime
    held: int
    expiring: int


_PUT: Final = """
INSERT INTO notify.pause AS p (kind, name, reason, paused_by) VALUES (%s, %s, %s, %s)
ON CONFLICT (kind, name) DO UPDATE SET reason = excluded.reason, paused_by = excluded.paused_by
"""


def put(database: Database, kind: str, name: str, *, reason: str, by: str) -> None:
    """Pause it. One that is paused already keeps its time, and gets the new reason.

    Args:
        database: the store.
        kind: `queue`, `type` or `tenant`.
        name: a queue's whole name, or a type's or tenant's.
        reason: shown wherever something waits for it.
        by: who wants it.
    """
    database.rows(_PUT, (kind, storable(name), storable(reason), storable(by)))


def remove(database: Database, kind: str, name: str) -> bool:
    """End a pause. False where there is none."""
    return bool(
        database.rows(
            "DELETE FROM notify.pause WHERE kind = %s AND name = %s RETURNING name", (kind, storable(name))
        )
    )


_LIST: Final = """
SELECT p.kind, p.name, p.reason, p.paused_by AS by, p.since, w.held, w.expiring FROM notify.pause p
 CROSS JOIN LATERAL (
     SELECT count(*)::int AS held,
            (count(*) FILTER (WHERE x.expires_at < now() + interval '1 hour'))::int AS expiring
       FROM (SELECT d.expires_at FROM notify.delivery d
              WHERE d.state = 'held' AND d.reason LIKE 'paused: %%'
                AND CASE p.kind WHEN 'queue' THEN notify.queue_for(d.channel, d.lane) = p.name
                                WHEN 'type' THEN d.event_type = p.name
                                ELSE d.tenant = p.name END
              LIMIT %s) x) w
 ORDER BY p.since, p.kind, p.name
"""


def listed(database: Database) -> list[Pause]:
    """Every pause, the oldest first."""
    return [Pause(**row) for row in database.rows(_LIST, (COUNTED,))]


_TENANT: Final = "SELECT 1 AS one FROM notify.message_key WHERE tenant = %s LIMIT 1"


def knows_tenant(database: Database, name: str) -> bool:
    """Whether anything has been sent for a tenant of this name within the time that message ids are remembered."""
    return bool(database.rows(_TENANT, (storable(name),)))
