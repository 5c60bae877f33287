"""The `intake` table: calls that are kept but not yet planned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from notify_tasks.store.database import Database, jsonb

TAKEN_SECONDS: Final = 30
"""Whoever takes a row has so long to plan it before another one may."""
TAKEN_BYTES: Final = 8 * 1024 * 1024
"""Of envelopes, as PostgreSQL stores them: so much is taken in one go, and at least one row."""
TAKES: Final = 3
"""A row taken this often without an end is parked."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One row. `waited` is in seconds, since it came here."""

    tenant: str
    message_id: str
    hash: str
    origin: str
    tries: int
    waited: float
    envelope: Any = field(repr=False)


# A row that was taken before and is still here may be what ended its taker: it is taken alone, so that it cannot
# drag its neighbours along to their last try.
_TAKE = """
WITH fresh AS MATERIALIZED (
    SELECT tenant, message_id, hash, due_at, pg_column_size(envelope) AS size FROM notify.intake
     WHERE due_at <= now() AND tries = 0
     ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED),
-- Calls of digests may be large: what is more than fits into one go is the next one's.
fitting AS (
    SELECT x.tenant, x.message_id, x.hash FROM (
        SELECT fresh.*, sum(size) OVER (ORDER BY due_at, tenant, message_id, hash) - size AS before FROM fresh) x
     WHERE x.before < %s),
suspect AS MATERIALIZED (
    SELECT tenant, message_id, hash FROM notify.intake
     WHERE due_at <= now() AND tries > 0 AND NOT EXISTS (SELECT 1 FROM fresh)
     ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED),
c AS (SELECT * FROM fitting UNION ALL SELECT * FROM suspect)
UPDATE notify.intake i
   SET tries = i.tries + 1, due_at = now() + make_interval(secs => %s)
  FROM c WHERE i.tenant = c.tenant AND i.message_id = c.message_id AND i.hash = c.hash
RETURNING i.tenant, i.message_id, i.hash, i.origin, i.tries, i.envelope,
          extract(epoch FROM now() - i.created_at)::float8 AS waited
"""


def take(database: Database, *, limit: int) -> list[Kept]:
    """Take rows that are due; no other process gets them for `TAKEN_SECONDS`.

    Those that were taken before without an end come one by one, after the others.
    """
    return [Kept(**row) for row in database.rows(_TAKE, (limit, TAKEN_BYTES, TAKEN_SECONDS))]


_KEEP = """
INSERT INTO notify.intake (tenant, message_id, hash, envelope, origin, due_at)
SELECT x.tenant, x.message_id, x.hash, x.envelope, x.origin, now() + make_interval(secs => x.wait)
  FROM jsonb_to_recordset(%s::jsonb) AS x(
      tenant text, message_id text, hash text, envelope jsonb, origin text, wait float8)
ON CONFLICT DO NOTHING
RETURNING message_id
"""


def keep(database: Database, envelopes: Sequence[dict[str, Any]], *, origin: str, wait: float = 0.0) -> int:
    """Store envelopes (those that are here already are left alone). Returns how many were new.

    Args:
        database: the store.
        envelopes: wire forms.
        origin: `producer`, `ledger` (found lost), `unknown_type`, `replay`.
        wait: seconds before they are due.
    """
    document = jsonb(
        [
            {
                "tenant": envelope["tenant"],
                "message_id": envelope["message_id"],
                "hash": envelope["hash"],
                "envelope": envelope,
                "origin": origin,
                "wait": wait,
            }
            for envelope in envelopes
        ]
    )
    return len(database.rows(_KEEP, (document,)))


_DONE = """
DELETE FROM notify.intake i USING jsonb_to_recordset(%s::jsonb) AS x(tenant text, message_id text, hash text)
 WHERE i.tenant = x.tenant AND i.message_id = x.message_id AND i.hash = x.hash
"""


def done(database: Database, rows: Sequence[Kept]) -> None:
    """These have their end."""
    if rows:
        database.rows(_DONE, (_keys(rows),))


_LATER = """
UPDATE notify.intake i SET tries = 0, due_at = now() + make_interval(secs => %s)
  FROM jsonb_to_recordset(%s::jsonb) AS x(tenant text, message_id text, hash text)
 WHERE i.tenant = x.tenant AND i.message_id = x.message_id AND i.hash = x.hash
"""


def later(database: Database, rows: Sequence[Kept], *, wait: float) -> None:
    """Look at these again in `wait` seconds: their type is not there yet."""
    if rows:
        database.rows(_LATER, (wait, _keys(rows)))


def _keys(rows: Sequence[Kept]) -> str:
    return jsonb([{"tenant": row.tenant, "message_id": row.message_id, "hash": row.hash} for row in rows])


def waiting(database: Database) -> int:
    """How many there are."""
    rows = database.rows("SELECT count(*) AS n FROM notify.intake")
    n: int = rows[0]["n"]
    return n
