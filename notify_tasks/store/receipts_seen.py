"""Receipts as an operator sees them: which there are, what nobody could use, and reading that again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from channels.receipts import Event
from notify_tasks.store import receipts
from notify_tasks.store.database import Connection, Database, jsonb
from notify_tasks.store.receipts import TROUBLE, Kept

GIVE_UP_HOURS: Final = 72


@dataclass(frozen=True, slots=True)
class Stored:
    """One receipt as lists show it.

    Args:
        message_id: of the notification whose delivery it is about; None where there is none.
        due_at: when it is tried again, for one that waits.
        kept: whether it can be read again.
    """

    id: int
    provider: str
    state: str
    code: str | None
    fate: str | None
    standing: str | None
    channel: str
    delivery_id: uuid.UUID | None
    message_id: str | None
    detail: str | None
    tries: int
    happened_at: datetime | None
    received_at: datetime
    due_at: datetime
    kept: bool


_FIND: Final = """
SELECT r.id, r.provider, r.state, r.code, r.fate, r.standing, r.channel, r.delivery_id, d.message_id, r.detail, r.tries,
       r.happened_at, r.received_at, r.due_at, r.request_id IS NOT NULL AS kept
  FROM notify.receipt r LEFT JOIN notify.delivery d ON d.id = r.delivery_id
 WHERE r.state = ANY(%(states)s) AND r.id < %(before)s AND (%(provider)s::text IS NULL OR r.provider = %(provider)s)
 ORDER BY r.id DESC LIMIT %(limit)s
"""


def find(
    database: Database,
    *,
    states: Sequence[str] = TROUBLE,
    provider: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Stored]:
    """Receipts, the newest first.

    Args:
        database: the store.
        states: those in one of these.
        provider: those of this one alone.
        before: those that came before the one of this id.
        limit: how many at most.
    """
    wanted = {
        "states": list(states),
        "provider": provider,
        "before": 2**63 - 1 if before is None else before,
        "limit": limit,
    }
    return [Stored(**row) for row in database.rows(_FIND, wanted)]


_TROUBLED: Final = f"""
SELECT state, count(*) AS n FROM notify.receipt WHERE state IN {TROUBLE} GROUP BY state
"""  # noqa: S608 - words of ours


def troubled(database: Database) -> dict[str, int]:
    """How many there are in each state that somebody must look at."""
    return {row["state"]: row["n"] for row in database.rows(_TROUBLED)}


_UNTOUCHED: Final = """
SELECT extract(epoch FROM now() - min(received_at))::float8 AS age FROM notify.receipt
 WHERE state IN ('new', 'waiting') AND tries = 0
"""


def oldest_untouched(database: Database) -> float | None:
    """Seconds since the oldest one came that no worker has looked at; None where there is none."""
    age: float | None = database.rows(_UNTOUCHED)[0]["age"]
    return age


@dataclass(frozen=True, slots=True)
class Raw:
    """A receipt in trouble with its request; `raw` is None where that is gone."""

    id: int
    provider: str
    channel: str
    state: str
    raw: bytes | None = field(repr=False)


_RAW: Final = f"""
SELECT r.id, r.provider, r.channel, r.state, q.raw
  FROM notify.receipt r LEFT JOIN notify.receipt_request q ON q.id = r.request_id
 WHERE r.id = ANY(%s) AND r.state IN {TROUBLE} ORDER BY r.id
"""  # noqa: S608 - as above


def read_raw(database: Database, ids: Sequence[int]) -> list[Raw]:
    """Those of `ids` that are in trouble."""
    return [Raw(**row) for row in database.rows(_RAW, (list(ids),))]


_LOCK_RAW: Final = """
SELECT request_id, event_id FROM notify.receipt WHERE id = %s AND state IN ('unknown', 'unreadable') FOR UPDATE
"""
_REPLACE: Final = f"""{receipts.INSERT}
ON CONFLICT (provider, event_id) DO UPDATE
   SET state = excluded.state, code = excluded.code, fate = excluded.fate, standing = excluded.standing,
       delivery_id = excluded.delivery_id, provider_message_id = excluded.provider_message_id,
       address = excluded.address, detail = excluded.detail, happened_at = excluded.happened_at,
       due_at = excluded.due_at, give_up_at = excluded.give_up_at, tries = 0
 WHERE r.state IN ('unknown', 'unreadable')
RETURNING r.id, r.state
"""  # noqa: S608 - as above
_DROP: Final = "DELETE FROM notify.receipt WHERE id = %s AND NOT event_id = ANY(%s)"


def replace(database: Database, found: Raw, events: Sequence[Event]) -> Kept:
    """Put what a request says by today's tables in the place of what could not be understood of it."""
    rows = receipts.rows_of(events)

    def run(connection: Connection) -> Kept:
        row = connection.execute(_LOCK_RAW, (found.id,)).fetchone()
        if row is None:  # somebody else was first
            return Kept()
        wanted = {
            "provider": found.provider,
            "channel": found.channel,
            "request": row["request_id"],
            "events": jsonb(rows),
        }
        put = connection.execute(_REPLACE, wanted).fetchall()
        connection.execute(_DROP, (found.id, [it["event_id"] for it in rows]))
        new = tuple(it["id"] for it in put if it["state"] == "new")
        return Kept(new, tuple(it["id"] for it in put if it["state"] == "unknown"), len(rows) - len(put))

    return database.transact(run)


_ANEW: Final = """
UPDATE notify.receipt SET state = 'new', tries = 0, due_at = now(),
       give_up_at = now() + make_interval(hours => %s)
 WHERE id = ANY(%s) AND state = 'unmatched'
RETURNING id
"""


def try_anew(database: Database, ids: Sequence[int]) -> list[int]:
    """Look for the deliveries of unmatched ones for another 72 hours."""
    return [row["id"] for row in database.rows(_ANEW, (GIVE_UP_HOURS, list(ids)))]
