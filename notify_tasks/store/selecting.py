"""A filter as SQL: which deliveries an operator means, counted by group and read page by page.

Only what ended and was perhaps not sent is selected: that is what the index `delivery_troubled` has.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from notify_tasks.filters import Filter
from notify_tasks.store.database import Database

TROUBLED: Final = ("failed", "undelivered", "in_doubt", "expired", "cancelled", "suppressed")
"""The states that can be selected."""

_COLUMNS: Final = {
    "type": "event_type",
    "channel": "channel",
    "lane": "lane",
    "provider": "provider",
    "reason": "reason",
    "tenant": "tenant",
    "recipient": "recipient_id",
    "message": "message_id",
}
LAST: Final = """
  LEFT JOIN LATERAL (SELECT t.code, t.outcome FROM notify.attempt t WHERE t.delivery_id = d.id
                      ORDER BY t.started_at DESC, t.number DESC LIMIT 1) a ON true
"""
"""The last attempt of a delivery `d`, as `a`."""


def where(wanted: Filter) -> tuple[str, dict[str, Any]]:
    """The condition on a delivery `d` and its last attempt `a`, but for its state; and the parameters.

    The text is made of names of this module alone; values are parameters.
    """
    parts, parameters = ["true"], dict[str, Any]()
    for name, column in _COLUMNS.items():
        if values := wanted.of(name):
            parts.append(f"d.{column} LIKE ANY(%({name})s)")
            parameters[name] = [_pattern(value) for value in values]
    if values := wanted.of("code"):
        # A code may go on after a space: `550 5.1.1`.
        parts.append("(a.code LIKE ANY(%(code)s) OR (a.code IS NULL AND d.reason LIKE ANY(%(code)s)))")
        parameters["code"] = [
            pattern for value in values for pattern in (_pattern(value), f"{_escaped(value)} %")
        ]
    if wanted.since is not None:
        parts.append("d.updated_at >= %(since)s")
        parameters["since"] = wanted.since
    if wanted.until is not None:
        parts.append("d.updated_at < %(until)s")
        parameters["until"] = wanted.until
    return " AND ".join(parts), parameters


def _escaped(value: str) -> str:
    return value.replace("\0", "").replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _pattern(value: str) -> str:
    return f"{_escaped(value[:-1])}%" if value.endswith("*") else _escaped(value)


@dataclass(frozen=True, slots=True)
class Group:
    """Deliveries of one kind.

    Args:
        code: of the last attempt, or the reason where there was none.
        count: all of them.
        replayed: those of them that have been replayed.
        gone: those not replayed whose content or address is gone: they cannot be sent again.
    """

    state: str
    event_type: str
    channel: str
    provider: str | None
    code: str | None
    count: int
    replayed: int
    gone: int


_GROUPS: Final = """
SELECT d.state, d.event_type, d.channel, d.provider, coalesce(a.code, d.reason) AS code, count(*)::int AS count,
       (count(*) FILTER (WHERE r.id IS NOT NULL))::int AS replayed,
       (count(*) FILTER (WHERE r.id IS NULL AND (d.address = '' OR n.purged_at IS NOT NULL)))::int AS gone
  FROM notify.delivery d
  JOIN notify.notification n ON n.id = d.notification_id
  LEFT JOIN notify.delivery r ON r.replay_of = d.id
{last}
 WHERE d.state = ANY(%(states)s) AND {where}
 GROUP BY 1, 2, 3, 4, 5 ORDER BY count(*) DESC, 1, 2, 3, 4, 5
"""


def groups(database: Database, wanted: Filter) -> list[Group]:
    """Count what is meant, by group, the largest first."""
    condition, parameters = where(wanted)
    statement = _GROUPS.format(last=LAST, where=condition)
    return [
        Group(**row) for row in database.rows(statement, parameters | {"states": list(wanted.of("state"))})
    ]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended."""

    updated_at: datetime
    id: uuid.UUID


# One state at a time: the index is in this order within each.
_PAGE: Final = """
SELECT d.id, d.updated_at FROM notify.delivery d
{last}
 WHERE d.state = %(state)s AND (%(at)s::timestamptz IS NULL OR (d.updated_at, d.id) > (%(at)s, %(id)s::uuid))
   AND {open} AND {where}
 ORDER BY d.updated_at, d.id LIMIT %(limit)s
"""
REPLAYABLE_STILL: Final = """
    d.address <> '' AND NOT EXISTS (SELECT 1 FROM notify.delivery r WHERE r.replay_of = d.id)
    AND EXISTS (SELECT 1 FROM notify.notification n WHERE n.id = d.notification_id AND n.purged_at IS NULL)
"""
"""What can be replayed: not replayed yet, and with content and address."""


def page(
    database: Database,
    wanted: Filter,
    state: str,
    *,
    after: Place | None,
    limit: int,
    replayable: bool = True,
) -> list[Place]:
    """A page of what is meant, the oldest end first.

    Args:
        database: the store.
        wanted: the filter.
        state: of the deliveries, one that the filter names.
        after: the last of the page before.
        limit: rows at most.
        replayable: leave out what cannot be replayed, or has been.
    """
    condition, parameters = where(wanted)
    parameters |= {
        "state": state,
        "at": None if after is None else after.updated_at,
        "id": None if after is None else after.id,
        "limit": limit,
    }
    still = REPLAYABLE_STILL if replayable else "true"
    rows = database.rows(_PAGE.format(last=LAST, open=still, where=condition), parameters)
    return [Place(row["updated_at"], row["id"]) for row in rows]
