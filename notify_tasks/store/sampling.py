"""What a fleet is like now: numbers for whoever watches it, from indexes of rows that wait or are in trouble.

`now` is cheap, however much there is. `waiting` costs as much as there is that waits: whoever calls it leaves more time
between two calls the longer it takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from notify_tasks.store import sweeps
from notify_tasks.store.database import Connection, Database

HEARD_SECONDS: Final = 45
"""Whoever has said nothing for longer is gone. Processes give their word every 30 s."""
WAITING_MILLISECONDS: Final = 20_000

# Each a look at one small table, or at an index of the rows that it counts.
_NOW = """
SELECT
    extract(epoch FROM now() - s.last_at)::float8 AS sweep_age,
    extract(epoch FROM now() - s.ticked_at)::float8 AS beat_age,
    (SELECT count(*) FROM notify.schedule WHERE paused_at IS NULL AND next_at <= now()) AS schedules_due,
    (SELECT extract(epoch FROM now() - min(next_at))::float8 FROM notify.schedule
      WHERE paused_at IS NULL AND next_at <= now()) AS schedule_lag,
    (SELECT count(*) FROM notify.schedule WHERE problem IS NOT NULL) AS schedule_problems,
    (SELECT count(*) FROM notify.digest WHERE state <> 'closed') AS digests_open,
    (SELECT count(*) FROM notify.digest WHERE state <> 'closed' AND due_at <= now()) AS digests_due,
    (SELECT extract(epoch FROM now() - min(due_at))::float8 FROM notify.digest
      WHERE state <> 'closed' AND due_at <= now()) AS digest_lag,
    (SELECT count(*) FROM notify.parked_message WHERE replayed_at IS NULL) AS parked,
    (SELECT extract(epoch FROM now() - created_at)::float8 FROM notify.intake ORDER BY due_at LIMIT 1) AS intake_oldest
  FROM notify.sweep s
"""
_RECEIPTS = """
SELECT state, count(*) AS n FROM notify.receipt WHERE state IN ('new', 'waiting') GROUP BY state
UNION ALL
SELECT state, count(*) AS n FROM notify.receipt WHERE state IN ('unmatched', 'unknown', 'unreadable') GROUP BY state
"""
_LEFT_OUT = """
SELECT provider, misconfigured, count(*) AS n FROM notify.provider_report
 WHERE seen_at > now() - make_interval(secs => %s) GROUP BY 1, 2
"""
_PAUSES = "SELECT kind, count(*) AS n FROM notify.pause GROUP BY kind"
_WORKERS = """
SELECT version, problem IS NOT NULL AS wrong, queues FROM notify.configuration_report
 WHERE seen_at > now() - make_interval(secs => %s)
"""


@dataclass(frozen=True, slots=True)
class Now:
    """The small numbers.

    Args:
        facts: by the names of the statement's columns; None where there is nothing to be late.
        receipts: by state.
        left_out: worker processes that leave a provider out: by its name and whether it is misconfigured.
        pauses: by kind.
        consumers: worker processes by queue.
        workers: processes that have given their word lately.
        problems: those of them that keep an old configuration.
        configurations: how many different ones are in force.
        markers: seconds for which the oldest marker of a queue has not come back.
        counters: totals by name.
    """

    facts: Mapping[str, float | None]
    receipts: Mapping[str, int]
    left_out: Mapping[tuple[str, bool], int]
    pauses: Mapping[str, int]
    consumers: Mapping[str, int]
    workers: int
    problems: int
    configurations: int
    markers: Mapping[str, float]
    counters: Mapping[str, int]


def now(database: Database) -> Now:
    """The small numbers, at this moment."""
    workers = database.rows(_WORKERS, (HEARD_SECONDS,))
    consumers: dict[str, int] = {}
    for row in workers:
        for queue in row["queues"] or ():
            consumers[queue] = consumers.get(queue, 0) + 1
    return Now(
        facts=database.rows(_NOW)[0],
        receipts={row["state"]: row["n"] for row in database.rows(_RECEIPTS)},
        left_out={
            (row["provider"], row["misconfigured"]): row["n"]
            for row in database.rows(_LEFT_OUT, (HEARD_SECONDS,))
        },
        pauses={row["kind"]: row["n"] for row in database.rows(_PAUSES)},
        consumers=consumers,
        workers=len(workers),
        problems=sum(row["wrong"] for row in workers),
        configurations=len({row["version"] for row in workers}),
        markers=sweeps.silent_queues(database),
        counters=sweeps.counters(database),
    )


# One branch for each partial index. What is held by plan is late only once its time has passed.
_WAITING = """
SELECT channel, lane, state, count(*) AS n, coalesce(max(late), 0)::float8 AS oldest,
       count(*) FILTER (WHERE late > %s) AS overdue
  FROM (SELECT channel, lane, state, created_at, planned_for,
               extract(epoch FROM now() - coalesce(planned_for, created_at)) AS late
          FROM notify.delivery WHERE state = 'queued'
        UNION ALL
        SELECT channel, lane, state, created_at, planned_for,
               extract(epoch FROM now() - coalesce(planned_for, created_at))
          FROM notify.delivery WHERE state = 'sending'
        UNION ALL
        SELECT channel, lane, state, created_at, planned_for,
               CASE WHEN state = 'held' AND fence = 0 AND notify.waits_by_plan(reason)
                    THEN greatest(extract(epoch FROM now() - coalesce(due_at, step_at)), 0)
                    ELSE extract(epoch FROM now() - coalesce(planned_for, created_at)) END
          FROM notify.delivery WHERE state IN ('held', 'retrying')) waits
 GROUP BY 1, 2, 3
"""
_TROUBLED = """
SELECT channel, state, count(*) AS n FROM notify.delivery d
 WHERE state = 'in_doubt'
    OR (state = 'failed' AND NOT EXISTS (SELECT 1 FROM notify.delivery r WHERE r.replay_of = d.id))
 GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Group:
    """Deliveries of a channel and lane in one state that is not final.

    Args:
        n: how many.
        oldest: seconds since the oldest should have been sent.
        overdue: how many should have been sent by the objective, and were not.
    """

    channel: str
    lane: str
    state: str
    n: int
    oldest: float
    overdue: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits, and what is in trouble.

    Args:
        troubled: deliveries that are `in_doubt`, or `failed` and not sent again: by channel and state.
        intake: calls that are not planned yet.
    """

    groups: list[Group]
    troubled: Mapping[tuple[str, str], int]
    intake: int = field(default=0)


def waiting(database: Database, *, objective: float) -> Waiting:
    """Everything that waits.

    Args:
        database: the store.
        objective: seconds within which a delivery should be sent.

    Raises:
        DatabaseError: it took longer than 20 seconds, or PostgreSQL is away.
    """

    def work(connection: Connection) -> Waiting:
        connection.execute(f"SET LOCAL statement_timeout = {WAITING_MILLISECONDS}")
        # The planner may take old statistics for a reason to read the whole table.
        connection.execute("SET LOCAL enable_seqscan = off")
        found: list[dict[str, Any]] = connection.execute(_WAITING, (objective,)).fetchall()
        troubled = connection.execute(_TROUBLED).fetchall()
        intake = connection.execute("SELECT count(*) AS n FROM notify.intake").fetchone()
        return Waiting(
            [Group(**row) for row in found],
            {(row["channel"], row["state"]): row["n"] for row in troubled},
            0 if intake is None else intake["n"],
        )

    return database.transact(work)
