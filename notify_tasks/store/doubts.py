"""Deliveries in doubt, and an operator's word on them.

A delivery is in doubt where an attempt's outcome is unknown and nothing more may be tried. A receipt or a late answer
settles it within 72 hours; after that only an operator does.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from notify_tasks.filters import Filter
from notify_tasks.states import State, may_move
from notify_tasks.store.database import Connection, Database, storable
from notify_tasks.store.replaying import again_within
from notify_tasks.store.selecting import LAST, where
from notify_tasks.store.sweeps import Wake

OPEN_HOURS: Final = 72
OPERATOR: Final = "operator"
"""The code of what an operator has decided."""
WORDS: Final = ("sent", "failed", "resend")
ENDS: Final = {"sent": State.SENT, "failed": State.FAILED, "resend": State.FAILED}
"""What each word makes of the delivery; `resend` has a new one made beside it."""
LONGEST_WHY: Final = 300


@dataclass(frozen=True, slots=True)
class Doubt:
    """One delivery in doubt.

    Args:
        since: when it came into doubt, UTC.
        code: of its last attempt.
        outcome: of its last attempt: `lost` where its worker ended, `uncertain` where the answer did not come.
        replayed: a replay has made a new delivery of it.
    """

    id: uuid.UUID
    message_id: str
    event_type: str
    tenant: str
    channel: str
    provider: str | None
    recipient_id: str | None
    since: datetime
    reason: str | None
    code: str | None
    outcome: str | None
    replayed: bool
    address: str = field(repr=False)


_FIND: Final = """
SELECT d.id, d.message_id, d.event_type, d.tenant, d.channel, d.provider, d.recipient_id, d.address,
       d.updated_at AS since, d.reason, a.code, a.outcome,
       EXISTS (SELECT 1 FROM notify.delivery r WHERE r.replay_of = d.id) AS replayed
  FROM notify.delivery d
{last}
 WHERE d.state = 'in_doubt' AND {where}
 ORDER BY d.updated_at, d.id LIMIT %(limit)s
"""


def find(database: Database, wanted: Filter, *, limit: int) -> list[Doubt]:
    """Those that are meant, in doubt for the longest first."""
    condition, parameters = where(wanted)
    rows = database.rows(_FIND.format(last=LAST, where=condition), parameters | {"limit": limit})
    return [Doubt(**row) for row in rows]


_READ: Final = _FIND.format(last=LAST, where="d.id = ANY(%(ids)s)")


def read(database: Database, ids: Sequence[uuid.UUID]) -> list[Doubt]:
    """Those of these deliveries that are in doubt."""
    return [Doubt(**row) for row in database.rows(_READ, {"ids": list(ids), "limit": len(ids)})]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What resolving did.

    Args:
        count: deliveries that are in doubt no more.
        wakes: new deliveries to wake, of those that are sent again.
    """

    count: int
    wakes: list[Wake]


# One in doubt of which a replay was made before may be settled, but is not sent a third time.
_LOCK: Final = """
SELECT d.id FROM notify.delivery d
 WHERE d.id = ANY(%(ids)s) AND d.state = 'in_doubt' AND (NOT %(resend)s OR {still})
 ORDER BY d.id FOR UPDATE
"""
_STILL: Final = """
    (d.address <> '' AND NOT EXISTS (SELECT 1 FROM notify.delivery r WHERE r.replay_of = d.id)
     AND EXISTS (SELECT 1 FROM notify.notification n WHERE n.id = d.notification_id AND n.purged_at IS NULL))
"""
_RESOLVE: Final = """
WITH d AS (
    UPDATE notify.delivery d
       SET state = %(state)s, unknown = CASE WHEN %(state)s = 'sent' THEN d.unknown ELSE 0 END,
           reason = CASE WHEN %(state)s = 'sent' THEN NULL ELSE %(reason)s END,
           accepted = d.accepted OR %(state)s = 'sent', due_at = NULL, updated_at = now()
     WHERE d.id = ANY(%(ids)s) AND d.state = 'in_doubt'
    RETURNING d.id, d.tenant, d.notification_id, d.state)
INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, code, detail)
SELECT tenant, notification_id, id, state, 'operator', %(detail)s FROM d ORDER BY id
"""


def resolve(database: Database, ids: Sequence[uuid.UUID], word: str, *, by: str, why: str) -> Resolved:
    """Settle deliveries in doubt in one transaction, with an event that says who did it and why.

    What is in doubt no more is left alone: a receipt was quicker, or another operator.

    Args:
        database: the store.
        ids: of the deliveries.
        word: `sent` (it arrived), `failed` (it did not, and is not sent again), or `resend` (it failed, and a new
            delivery is made of it; not of one that was replayed before, or whose content is gone).
        by: who decides.
        why: what makes them sure.
    """
    state = ENDS[word]
    assert may_move(State.IN_DOUBT, state)
    detail = storable(f"{word} by {by}: {why[:LONGEST_WHY]}")

    def run(connection: Connection) -> Resolved:
        wanted = {"ids": list(ids), "resend": word == "resend"}
        mine = [row["id"] for row in connection.execute(_LOCK.format(still=_STILL), wanted).fetchall()]
        if not mine:
            return Resolved(0, [])
        parameters = {"ids": mine, "state": state, "reason": f"resolved_as_{word}", "detail": detail}
        connection.execute(_RESOLVE, parameters)
        if word != "resend":
            return Resolved(len(mine), [])
        return Resolved(len(mine), again_within(connection, mine, states=[state], by=by, lifetime=None))

    return database.transact(run)
