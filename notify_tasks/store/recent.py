"""What has just happened, for whoever watches: cheap, however large the tables are, and therefore about right.

Events are read on from the last one that was seen. One that is committed after a later one is missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from notify_tasks.store.database import Database

FIRST: Final = 20_000
"""Events at most of the first look, and of each one after it."""

_LAST: Final = "SELECT coalesce(max(id), 0) AS id FROM notify.status_event"
_EVENTS: Final = """
WITH e AS MATERIALIZED (
    SELECT id, kind, delivery_id FROM notify.status_event
     WHERE id > %(after)s AND id <= %(until)s AND delivery_id IS NOT NULL
       AND at > now() - make_interval(secs => %(seconds)s))
SELECT e.kind, d.channel, d.provider, count(*)::int AS n FROM e JOIN notify.delivery d ON d.id = e.delivery_id
 GROUP BY 1, 2, 3
"""
_ACCEPTED: Final = """
SELECT count(*)::int AS n FROM notify.notification
 WHERE purged_at IS NULL AND accepted_at > now() - make_interval(secs => %s)
"""
_ABOUT: Final = """
SELECT greatest(reltuples::bigint, pg_stat_get_live_tuples(oid)) AS n
  FROM pg_class WHERE oid = 'notify.delivery'::regclass
"""


@dataclass(frozen=True, slots=True)
class Happened:
    """Events of one kind."""

    kind: str
    channel: str
    provider: str | None
    n: int


def events(database: Database, after: int | None, *, seconds: float) -> tuple[int, list[Happened]]:
    """What has happened since an event.

    Args:
        database: the store.
        after: its number; None looks `seconds` back.
        seconds: older ones are left out.

    Returns:
        the number of the last event that was looked at, and what happened.
    """
    until: int = database.rows(_LAST)[0]["id"]
    least = max(until - FIRST, 0)
    after = least if after is None else max(after, least)
    if until <= after:
        return until, []
    rows = database.rows(_EVENTS, {"after": after, "until": until, "seconds": seconds})
    return until, [Happened(**row) for row in rows]


def accepted(database: Database, *, seconds: float) -> int:
    """Notifications accepted within so many seconds."""
    n: int = database.rows(_ACCEPTED, (seconds,))[0]["n"]
    return n


def about(database: Database) -> int:
    """How many deliveries are stored, as PostgreSQL estimates."""
    n: int = database.rows(_ABOUT)[0]["n"]
    return n
