"""Later steps: given their turn when the step before them has moved, and judged when it has come.

Deliveries are locked in the order of their ids, or skipped where somebody has them, as everywhere. What a step waits
for is read and not locked: of a step that is judged while somebody reads, either is the answer, and only one.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from notify_tasks.store.database import Database, jsonb
from notify_tasks.store.sweeps import Wake

_ANYTHING: Final = """
SELECT EXISTS (SELECT 1 FROM notify.step_moved)
    OR EXISTS (SELECT 1 FROM notify.delivery WHERE state = 'held' AND step_at <= now()) AS found
"""


def anything(database: Database) -> bool:
    """Whether there is anything to do: one look at two indexes."""
    found: bool = database.rows(_ANYTHING)[0]["found"]
    return found


# --- its turn ---------------------------------------------------------------------------------------

# A note is committed with the move that it tells of, and whoever sees the note sees the move. Of two notes of one step
# that are taken at once, the later one's taker sees both moves: "nothing of it could be sent" is never missed.
# What may have been sent counts as sent; a step that was needless counts as sent when that was found. Whichever of a
# person's devices took it first sets the time.
# A step is worthless as much later than the one before as it has to wait for it.
_ADVANCE: Final = """
WITH noted AS MATERIALIZED (
    DELETE FROM notify.step_moved WHERE id = ANY(ARRAY(
        SELECT id FROM notify.step_moved ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING notification_id, chain, step, state, at),
moved AS MATERIALIZED (
    SELECT n.notification_id, n.chain, n.step, max(n.at) AS last_at,
           min(n.at) FILTER (WHERE n.state IN ('sent', 'delivered', 'in_doubt', 'superseded')) AS sent_at
      FROM noted n GROUP BY n.notification_id, n.chain, n.step),
known AS MATERIALIZED (
    SELECT m.*, b.failed, b.expires_at FROM moved m
     CROSS JOIN LATERAL (
           SELECT bool_and(e.state IN ('failed', 'undelivered', 'suppressed', 'expired')) AS failed,
                  max(e.expires_at) AS expires_at
             FROM notify.delivery e
            WHERE e.notification_id = m.notification_id AND e.chain = m.chain AND e.step = m.step) b),
next AS MATERIALIZED (
    SELECT d.id, CASE WHEN k.failed THEN k.last_at ELSE k.sent_at + make_interval(secs => d.step_after) END AS turn,
           k.expires_at + make_interval(secs => d.step_after) AS expires_at
      FROM known k
      JOIN notify.delivery d ON d.notification_id = k.notification_id AND d.chain = k.chain AND d.step = k.step + 1
     WHERE d.state = 'held' AND d.step_after IS NOT NULL AND d.due_at IS NULL AND (k.failed OR k.sent_at IS NOT NULL)
     ORDER BY d.id FOR UPDATE OF d),
given AS (
    UPDATE notify.delivery d
       SET step_at = least(d.step_at, n.turn), expires_at = coalesce(d.expires_at, n.expires_at), updated_at = now()
      FROM next n WHERE d.id = n.id
    RETURNING d.step_at)
SELECT (SELECT count(*) FROM noted) AS noted,
       ARRAY(SELECT greatest(extract(epoch FROM step_at - now()), 0)::float8 FROM given) AS waits
"""


@dataclass(frozen=True, slots=True)
class Advanced:
    """What was taken up.

    Args:
        noted: how many moves.
        waits: seconds until the turn of each step that was given one.
    """

    noted: int
    waits: tuple[float, ...]


def advance(database: Database, *, limit: int) -> Advanced:
    """Give their turn to steps whose step before has been sent, or could not be."""
    row = database.rows(_ADVANCE, (limit,))[0]
    return Advanced(row["noted"], tuple(row["waits"]))


# --- judged -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Due:
    """A step whose turn has come.

    Args:
        timezone: of its recipient, as it was planned.
        answered: why it is needless: `read` or `delivered`; None where it is not.
        choices: what its recipient has chosen, as stored; None for nothing.
        now: the database's time.
    """

    id: uuid.UUID
    event_type: str
    timezone: str | None
    step_at: datetime
    expires_at: datetime | None
    answered: str | None
    choices: Mapping[str, Any] | None
    now: datetime


_DUE: Final = """
SELECT d.id, d.event_type, d.timezone, d.step_at, d.expires_at, notify.step_answered(d.id) AS answered,
       p.settings AS choices, now() AS now
  FROM notify.delivery d
  LEFT JOIN notify.preference p ON p.tenant = d.tenant AND p.recipient_id = d.recipient_id
 WHERE d.state = 'held' AND d.due_at IS NULL AND d.step_at <= now()
 ORDER BY d.step_at LIMIT %s
"""


def due(database: Database, *, limit: int) -> list[Due]:
    """Steps whose turn has come, the oldest first."""
    return [Due(**row) for row in database.rows(_DUE, (limit,))]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a step whose turn had come at `step_at`.

    Args:
        state: `queued`, `held` until `until`, or a final state.
        reason: why it is not queued.
    """

    id: uuid.UUID
    step_at: datetime
    state: str
    reason: str | None = None
    until: datetime | None = None


# Of several that judge the same step the first one does it: the others find another time, or another state.
_SETTLE: Final = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%s::jsonb) AS x(
        id uuid, step_at timestamptz, state text, reason text, until timestamptz)),
c AS MATERIALIZED (
    SELECT d.id, d.step_at, d.state FROM notify.delivery d
     WHERE d.id IN (SELECT id FROM r) AND d.state = 'held' AND d.due_at IS NULL
     ORDER BY d.id FOR UPDATE SKIP LOCKED),
verdict AS MATERIALIZED (
    SELECT c.id, r.until, coalesce(a.answered, r.reason) AS reason,
           CASE WHEN a.answered IS NULL THEN r.state ELSE 'superseded' END AS state
      FROM c JOIN r ON r.id = c.id AND r.step_at = c.step_at
     CROSS JOIN LATERAL (SELECT CASE WHEN r.state <> 'held' THEN notify.step_answered(c.id) END AS answered) a),
d AS (
    UPDATE notify.delivery d
       SET state = v.state, reason = v.reason, step_at = CASE WHEN v.state = 'held' THEN v.until END,
           planned_for = CASE WHEN v.state = 'queued' THEN d.step_at ELSE d.planned_for END,
           marker = CASE WHEN v.state = 'queued' THEN notify.marker_now(notify.queue_for(d.channel, d.lane))
                         ELSE d.marker END, updated_at = now()
      FROM verdict v WHERE d.id = v.id
    RETURNING d.id, d.tenant, d.notification_id, d.channel, d.lane, d.message_id, d.event_type, d.state, d.reason),
event AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code)
    SELECT tenant, notification_id, id, state, reason FROM d WHERE state <> 'queued')
SELECT id, channel, lane, message_id, event_type, state FROM d
"""


def settle(database: Database, verdicts: Sequence[Verdict]) -> list[Wake]:
    """Write verdicts down; what has become needless meanwhile is superseded. Returns what was queued."""
    document = jsonb(
        [
            {
                "id": str(it.id),
                "step_at": it.step_at.isoformat(),
                "state": it.state,
                "reason": it.reason,
                "until": it.until.isoformat() if it.until else None,
            }
            for it in verdicts
        ]
    )
    rows = database.rows(_SETTLE, (document,)) if verdicts else []
    return [Wake(**row) for row in rows if row.pop("state") == "queued"]
