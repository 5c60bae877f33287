"""Totals that outlive every process: counted from status events, a few seconds after the fact, each event once.

Each statement looks at what is new alone, so that the cost does not depend on how much there is. Whoever exports
metrics calls `count`; several may, and one of them does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from notify_tasks.states import FINAL
from notify_tasks.store.database import Connection, Database

BATCH: Final = 20_000
"""Events in one go."""
BATCHES: Final = 10
MINUTES_KEPT: Final = 125
OWN_KINDS: Final = ("rejected", "digested", "cancelled")
"""Of events that belong to a notification and to no delivery."""

# One counts at a time. What has been seen is safe to count once every transaction has ended that was older: by number,
# or by the clock, since none of the fleet's statements lasts half a minute, and a host's own transaction may last long.
_SAFE = """
SELECT counted, seen,
       seen_at < now() - interval '0.25 seconds'
       AND (pg_snapshot_xmin(pg_current_snapshot()) >= seen_xid OR seen_at < now() - interval '2 minutes') AS safe
  FROM notify.tally_mark FOR UPDATE SKIP LOCKED
"""
_SEE = """
UPDATE notify.tally_mark
   SET seen = greatest(seen, coalesce((SELECT max(id) FROM notify.status_event), 0)),
       seen_xid = pg_snapshot_xmax(pg_current_snapshot()), seen_at = now(), at = seen_at
"""
_COUNT = """
WITH e AS MATERIALIZED (
    SELECT e.kind, e.at, e.delivery_id IS NULL AS own, coalesce(d.channel, '') AS channel,
           coalesce(d.lane, 'normal') AS lane,
           -- What no worker knew is whatever a producer has made up.
           CASE WHEN e.code = 'unknown_event_type' THEN 'other'
                ELSE coalesce(d.event_type, n.event_type, 'other') END AS event_type,
           greatest(extract(epoch FROM e.at - coalesce(d.planned_for, d.created_at))::float8, 0) AS delay
      FROM notify.status_event e
      LEFT JOIN notify.delivery d ON d.id = e.delivery_id
      LEFT JOIN notify.notification n ON e.delivery_id IS NULL AND n.id = e.notification_id
     WHERE e.id > %(after)s AND e.id <= %(upto)s
       AND CASE WHEN e.delivery_id IS NULL THEN e.kind = ANY(%(own)s) ELSE e.kind = ANY(%(final)s) END),
total AS (
    INSERT INTO notify.tally AS t (channel, event_type, state, value)
    SELECT channel, event_type, kind, count(*) FROM e GROUP BY 1, 2, 3
    ON CONFLICT (channel, event_type, state) DO UPDATE SET value = t.value + excluded.value),
delay AS (
    INSERT INTO notify.tally_delay AS t (state, channel, lane, upto, value, seconds)
    SELECT kind, channel, lane, b.upto, count(*), sum(delay) FROM e
     CROSS JOIN LATERAL (SELECT min(u) AS upto FROM unnest(%(bounds)s::float8[]) u WHERE delay <= u) b
     WHERE kind IN ('sent', 'delivered') AND delay IS NOT NULL GROUP BY 1, 2, 3, 4
    ON CONFLICT (state, channel, lane, upto) DO UPDATE
       SET value = t.value + excluded.value, seconds = t.seconds + excluded.seconds),
minute AS (
    INSERT INTO notify.tally_minute AS t (minute, lane, sent, in_time)
    SELECT date_trunc('minute', at), lane, count(*), count(*) FILTER (WHERE delay <= %(objective)s) FROM e
     WHERE kind = 'sent' AND delay IS NOT NULL AND at > now() - make_interval(mins => %(minutes)s) GROUP BY 1, 2
    ON CONFLICT (minute, lane) DO UPDATE
       SET sent = t.sent + excluded.sent, in_time = t.in_time + excluded.in_time),
old AS (
    DELETE FROM notify.tally_minute WHERE minute < now() - make_interval(mins => %(minutes)s))
UPDATE notify.tally_mark SET counted = %(upto)s
"""


def count(database: Database, *, bounds: Sequence[float], objective: float) -> bool:
    """Count what is new, up to 200,000 events.

    Args:
        database: the store.
        bounds: of the histograms, in seconds, ascending. They cannot be changed without forgetting what is counted.
        objective: seconds within which a delivery should be sent.

    Returns:
        Whether all is counted that could be. False also where another process counts at this moment.

    Raises:
        DatabaseError: what was counted before stays.
    """
    parameters = {
        "own": list(OWN_KINDS),
        "final": sorted(map(str, FINAL)),
        "bounds": [*bounds, float("inf")],
        "objective": objective,
        "minutes": MINUTES_KEPT,
    }

    def work(connection: Connection) -> bool:
        row = connection.execute(_SAFE).fetchone()
        if row is None:
            return False
        if row["counted"] < row["seen"]:
            if not row["safe"]:
                return True
            upto = min(row["seen"], row["counted"] + BATCH)
            connection.execute(_COUNT, parameters | {"after": row["counted"], "upto": upto})
            if upto < row["seen"]:
                return False
        connection.execute(_SEE)
        return True

    return any(database.transact(work) for _ in range(BATCHES))


@dataclass(frozen=True, slots=True)
class Tally:
    """Deliveries (or, with an empty channel, notifications) that have come into a state."""

    channel: str
    event_type: str
    state: str
    value: int


@dataclass(frozen=True, slots=True)
class Delays:
    """How long deliveries of a channel and lane took until they were sent, or delivered.

    Args:
        counts: by upper bound in seconds, each without those of the bounds below it.
        seconds: the sum.
    """

    state: str
    channel: str
    lane: str
    counts: dict[float, int]
    seconds: float


@dataclass(frozen=True, slots=True)
class Punctual:
    """Deliveries of a lane that were sent within a window, and those of them that were sent in time."""

    lane: str
    sent: int
    in_time: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Everything that is counted.

    Args:
        age: seconds since what was counted was all that there was.
    """

    tallies: list[Tally]
    delays: list[Delays]
    punctual: dict[str, list[Punctual]]
    age: float


_DELAYS = """
SELECT state, channel, lane, array_agg(upto) AS bounds, array_agg(value) AS counts, sum(seconds)::float8 AS seconds
  FROM notify.tally_delay GROUP BY 1, 2, 3
"""
_PUNCTUAL = """
SELECT lane, sum(sent)::bigint AS sent, sum(in_time)::bigint AS in_time FROM notify.tally_minute
 WHERE minute >= date_trunc('minute', now()) - make_interval(secs => %s) GROUP BY lane
"""
_AGE = "SELECT extract(epoch FROM now() - nullif(at, 'epoch'))::float8 AS age FROM notify.tally_mark"


def read(database: Database, windows: dict[str, int]) -> Totals:
    """What has been counted.

    Args:
        database: the store.
        windows: name and seconds of each window of the objective.
    """
    age = database.rows(_AGE)[0]["age"]
    return Totals(
        tallies=[
            Tally(**row)
            for row in database.rows("SELECT channel, event_type, state, value FROM notify.tally")
        ],
        delays=[
            Delays(
                row["state"],
                row["channel"],
                row["lane"],
                dict(zip(row["bounds"], row["counts"], strict=True)),
                row["seconds"],
            )
            for row in database.rows(_DELAYS)
        ],
        punctual={
            name: [Punctual(**row) for row in database.rows(_PUNCTUAL, (seconds,))]
            for name, seconds in windows.items()
        },
        age=float("inf") if age is None else age,
    )
