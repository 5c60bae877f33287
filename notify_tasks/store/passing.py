"""Hours that pass in a moment, for the demo: every time that is stored of some calls moves back by as much.

The fleet then finds what it would find after that time, and does what it would do. Nothing of it is simulated but the
waiting. What other calls have stored keeps its times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from notify_tasks.store.database import Connection, Database, jsonb

# Each with the columns that hold a time, and which of its rows belong to the calls `c` or the schedules.
_OF_CALLS: Final = (
    ("notification", ("accepted_at", "occurred_at"), "id IN (SELECT id FROM c)"),
    (
        "delivery",
        ("created_at", "updated_at", "due_at", "not_before", "expires_at", "step_at", "planned_for"),
        "notification_id IN (SELECT id FROM c)",
    ),
    (
        "attempt",
        ("started_at", "ended_at"),
        "delivery_id IN (SELECT id FROM notify.delivery WHERE notification_id IN (SELECT id FROM c))",
    ),
    ("status_event", ("at",), "notification_id IN (SELECT id FROM c)"),
    (
        "inbox_item",
        ("created_at", "read_at"),
        "delivery_id IN (SELECT id FROM notify.delivery WHERE notification_id IN (SELECT id FROM c))",
    ),
    (
        "digest",
        ("opened_at", "due_at", "cap_at", "closed_at"),
        "id IN (SELECT digest_id FROM notify.delivery WHERE notification_id IN (SELECT id FROM c))",
    ),
)
_OF_SCHEDULES: Final = (
    ("schedule", ("starts_at", "next_at", "ends_at", "created_at", "updated_at"), "id = ANY(%(schedules)s)"),
    ("schedule_occurrence", ("occurrence", "created_at"), "schedule_id = ANY(%(schedules)s)"),
)
_PLANS: Final = (
    "SELECT id, plan FROM notify.notification WHERE tenant = %(tenant)s AND message_id = ANY(%(messages)s)"
)
_PLANNED: Final = """
UPDATE notify.notification n SET plan = x.plan
  FROM jsonb_to_recordset(%s::jsonb) AS x(id uuid, plan jsonb) WHERE n.id = x.id
"""
_TIMES: Final = ("due_at", "expires_at")
"""What is a time in a stored plan."""
_NEXT: Final = """
WITH mine AS MATERIALIZED (
    SELECT d.* FROM notify.delivery d JOIN notify.notification n ON n.id = d.notification_id
     WHERE n.tenant = %(tenant)s AND n.message_id = ANY(%(messages)s)
       AND d.state IN ('held', 'queued', 'retrying', 'sending')),
at AS (
    SELECT coalesce(due_at, step_at) AS at FROM mine
     WHERE state = 'held' AND digest_id IS NULL AND (step_after IS NULL OR step_at IS NOT NULL)
    -- On its way, or waiting to be told its turn.
    UNION ALL SELECT now() FROM mine m
     WHERE state <> 'held' OR (digest_id IS NULL AND step_after IS NOT NULL AND step_at IS NULL AND NOT EXISTS (
               SELECT 1 FROM mine e WHERE e.notification_id = m.notification_id AND e.chain = m.chain
                  AND e.step < m.step AND e.state = 'held'))
    UNION ALL SELECT due_at FROM notify.digest
     WHERE state <> 'closed' AND id IN (SELECT digest_id FROM mine)
    UNION ALL SELECT next_at FROM notify.schedule
     WHERE tenant = %(tenant)s AND id = ANY(%(schedules)s) AND paused_at IS NULL)
SELECT extract(epoch FROM min(at) - now())::float8 AS seconds FROM at
"""
_OFFSPRING: Final = """
SELECT message_id FROM notify.schedule_occurrence WHERE tenant = %(tenant)s AND schedule_id = ANY(%(schedules)s)
UNION
SELECT g.message_id FROM notify.digest g
 WHERE g.message_id IS NOT NULL AND g.id IN (
    SELECT d.digest_id FROM notify.delivery d JOIN notify.notification n ON n.id = d.notification_id
     WHERE n.tenant = %(tenant)s AND n.message_id = ANY(%(messages)s))
ORDER BY 1
"""
_CALLS: Final = """
WITH c AS MATERIALIZED (
    SELECT id FROM notify.notification
     WHERE tenant = %(tenant)s AND message_id = ANY(%(messages)s))
"""


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose time passes: calls by message id, schedules by id."""

    messages: Sequence[str] = ()
    schedules: Sequence[str] = ()
    tenant: str = "default"


def next_moment(database: Database, whose: Whose) -> float | None:
    """Seconds until the next thing happens to these calls: 0 or less while something does; None where nothing will."""
    seconds: float | None = database.rows(_NEXT, _known(whose))[0]["seconds"]
    return seconds


def offspring(database: Database, whose: Whose) -> list[str]:
    """Ids of the calls that their schedules and digests have made."""
    return [row["message_id"] for row in database.rows(_OFFSPRING, _known(whose))]


def let_pass(database: Database, seconds: float, whose: Whose) -> None:
    """Let so many seconds pass for these calls and schedules, in one transaction."""
    known = _known(whose) | {"seconds": seconds}

    def run(connection: Connection) -> None:
        for table, columns, which in (*_OF_CALLS, *_OF_SCHEDULES):
            moved = ", ".join(f"{it} = {it} - make_interval(secs => %(seconds)s)" for it in columns)
            begin = _CALLS if "FROM c" in which else ""
            # Names of ours alone, and no values.
            connection.execute(f"{begin} UPDATE notify.{table} SET {moved} WHERE {which}", known)  # noqa: S608
        plans = connection.execute(_PLANS, known).fetchall()
        moved_plans = [
            {"id": str(row["id"]), "plan": _earlier(row["plan"], timedelta(seconds=seconds))} for row in plans
        ]
        connection.execute(_PLANNED, (jsonb(moved_plans),))

    database.transact(run)


def _earlier(value: Any, by: timedelta, name: str = "") -> Any:
    """The same, with what is a time in it moved back."""
    if isinstance(value, dict):
        return {key: _earlier(each, by, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_earlier(each, by, name) for each in value]
    return (datetime.fromisoformat(value) - by).isoformat() if name in _TIMES and value else value


def _known(whose: Whose) -> dict[str, Any]:
    return {
        "messages": list(whose.messages),
        "schedules": list(whose.schedules),
        "tenant": whose.tenant,
    }
