"""What the store would decide of a call as it accepts it, read and not done: its place in throttles, and its digest."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from notify_tasks.store.accepting import NewNotification
from notify_tasks.store.database import Database
from notify_tasks.store.joining import (
    _groups as groups_of,
)  # the same steps, in the order in which they are done
from notify_tasks.store.joining import _joined as joined
from notify_tasks.store.joining import _placed as placed

_USED: Final = """
SELECT w.start AS window_start, coalesce(notify.throttle_used(t, w.start), 0) AS used
  FROM (SELECT to_timestamp(floor(extract(epoch FROM %(now)s::timestamptz)::float8 / %(seconds)s::float8)
                            * %(seconds)s::float8) AS start) w
  LEFT JOIN notify.throttle t ON t.key = %(key)s AND t.ends_at > %(now)s::timestamptz
"""
_OPEN: Final = """
SELECT id, key, due_at, cap_at, false AS opened FROM notify.digest
 WHERE key = %s AND state = 'open' AND due_at > %s
"""


def foresee(database: Database, item: NewNotification, now: datetime) -> NewNotification:
    """Decide what is gathered and counted, by what is stored now.

    Args:
        database: it is only read.
        item: as planned.
        now: the instant at which it would be accepted, in UTC.
    """
    decided = {it.id: it for it in item.deliveries}
    for key, group in groups_of([item], decided, counted=True).items():
        rule = group.decision.counted.rule if group.decision.counted else None
        if rule is None:
            continue
        (row,) = database.rows(_USED, {"now": now, "seconds": rule.seconds, "key": key})
        for it in item.deliveries:
            counted = decided[it.id].decision.counted
            if counted is not None and counted.key == key:
                decided[it.id] = placed(decided[it.id], int(row["used"]), row["window_start"])
    for key in groups_of([item], decided, counted=False):
        found = database.rows(_OPEN, (key, now))
        for it in item.deliveries:
            digest = decided[it.id].decision.digest
            if digest is None or digest.key != key:
                continue
            row = {"id": None, "due_at": digest.due_at, "opened": True}
            if found:
                due = found[0]["due_at"]
                sliding = digest.cap_at is not None and found[0]["cap_at"] is not None
                later = (
                    min(max(due, digest.due_at), found[0]["cap_at"]) if sliding else min(due, digest.due_at)
                )
                row = {"id": found[0]["id"], "due_at": later, "opened": False}
            decided[it.id] = joined(decided[it.id], row, opens=not found)
    deliveries = tuple(decided[it.id] for it in item.deliveries)
    plan = (
        {**item.plan, "decisions": [it.decision.explained() for it in deliveries]}
        if deliveries
        else item.plan
    )
    return replace(item, deliveries=deliveries, plan=plan)
