"""Replay: a new delivery linked to the old one, or a rejected call planned again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from notify_tasks.notification import uuid7
from notify_tasks.store.database import Connection, Database, jsonb, storable
from notify_tasks.store.sweeps import Wake

REPLAYABLE = ("failed", "undelivered", "in_doubt", "expired", "cancelled", "suppressed")
BY_FILTER: Final = ("failed", "undelivered", "expired", "cancelled", "suppressed")
"""What is replayed by the many. What is in doubt may have arrived, and is resolved instead."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay did: new deliveries to wake, and how many rejected calls went back to intake."""

    wakes: list[Wake]
    calls: int


_ENDED = """
SELECT d.id FROM notify.delivery d JOIN notify.notification n ON n.id = d.notification_id
 WHERE n.tenant = %s AND n.message_id = %s AND d.state = ANY(%s)
   AND d.address <> '' AND n.purged_at IS NULL  -- else its recipient was erased, or its content is gone
   AND NOT EXISTS (SELECT 1 FROM notify.delivery r WHERE r.replay_of = d.id)
"""

# The notification is locked, so that retention does not take its content away at this very moment.
_AGAIN = """
WITH pair AS (SELECT * FROM jsonb_to_recordset(%(pairs)s::jsonb) AS x(old uuid, new uuid)),
kept AS MATERIALIZED (
    SELECT n.id FROM notify.notification n
     WHERE n.id IN (SELECT d.notification_id FROM pair p JOIN notify.delivery d ON d.id = p.old)
       AND n.purged_at IS NULL
     ORDER BY n.id FOR SHARE),
new AS (
    INSERT INTO notify.delivery (id, notification_id, tenant, message_id, event_type, recipient_id, address, locale,
                                 timezone, channel, lane, state, on_doubt, sandbox, expires_at, max_attempts, category,
                                 opt_in, chain, step, marker, replay_of)
    SELECT p.new, d.notification_id, d.tenant, d.message_id, d.event_type, d.recipient_id, d.address, d.locale,
           d.timezone, d.channel, d.lane, 'queued', d.on_doubt, d.sandbox,
           now() + coalesce(make_interval(secs => %(lifetime)s),
                            greatest(d.expires_at - d.created_at, make_interval(mins => 10))), d.max_attempts,
           d.category, d.opt_in, d.chain, d.step, notify.marker_now(notify.queue_for(d.channel, d.lane)), d.id
      FROM pair p JOIN notify.delivery d ON d.id = p.old JOIN kept ON kept.id = d.notification_id
     WHERE d.address <> '' AND d.state = ANY(%(states)s)
     ORDER BY d.id
    ON CONFLICT (replay_of) WHERE replay_of IS NOT NULL DO NOTHING  -- another replay was quicker
    RETURNING id, tenant, notification_id, channel, lane, message_id, event_type, replay_of),
event AS (
    INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, detail)
    SELECT tenant, notification_id, replay_of, 'replayed', %(by)s FROM new)
SELECT id, channel, lane, message_id, event_type FROM new
"""

# The key goes, so that intake takes the call as a new one; the rejected notification stays, as what it was.
_REJECTED = """
WITH old AS (
    SELECT id, tenant, message_id, hash, envelope FROM notify.notification
     WHERE tenant = %s AND message_id = %s AND state = 'rejected' AND reason <> 'conflict' AND envelope IS NOT NULL
     ORDER BY accepted_at DESC LIMIT 1),
key AS (
    DELETE FROM notify.message_key k USING old
     WHERE k.tenant = old.tenant AND k.message_id = old.message_id AND k.notification_id = old.id
    RETURNING k.notification_id),
event AS (
    INSERT INTO notify.status_event (tenant, notification_id, kind)
    SELECT old.tenant, old.id, 'replayed' FROM old JOIN key ON key.notification_id = old.id)
INSERT INTO notify.intake (tenant, message_id, hash, envelope, origin)
SELECT old.tenant, old.message_id, old.hash, old.envelope, 'replay' FROM old JOIN key ON key.notification_id = old.id
ON CONFLICT DO NOTHING
RETURNING message_id
"""


def replay(
    database: Database, message_id: str, *, tenant: str = "default", by: str | None = None
) -> Replayed:
    """Send again what ended without being sent, or plan a rejected call again.

    A delivery in doubt may have been received: replaying it may make a second message of it.
    """
    calls = len(database.rows(_REJECTED, (tenant, message_id)))
    ended = database.rows(_ENDED, (tenant, message_id, list(REPLAYABLE)))
    if not ended:
        return Replayed([], calls)
    return Replayed(
        again(database, [row["id"] for row in ended], states=REPLAYABLE, by=by, lifetime=None), calls
    )


def again(
    database: Database,
    ids: Sequence[uuid.UUID],
    *,
    states: Sequence[str] = BY_FILTER,
    by: str | None,
    lifetime: float | None,
) -> list[Wake]:
    """Send these deliveries again, each once: those replayed before, or not in one of the states, are left alone.

    Args:
        database: the store.
        ids: of the deliveries.
        states: in which they may be.
        by: who wants it.
        lifetime: seconds until the new ones expire; None gives each as long as the old one had.

    Returns:
        the new deliveries, to be woken.
    """
    return database.transact(
        lambda connection: again_within(connection, ids, states=states, by=by, lifetime=lifetime)
    )


def again_within(
    connection: Connection,
    ids: Sequence[uuid.UUID],
    *,
    states: Sequence[str],
    by: str | None,
    lifetime: float | None,
) -> list[Wake]:
    """As `again`, in a transaction of the caller's."""
    parameters = {
        "pairs": jsonb([{"old": str(id_), "new": str(uuid7())} for id_ in ids]),
        "states": list(states),
        "by": storable(by),
        "lifetime": lifetime,
    }
    return [Wake(**row) for row in connection.execute(_AGAIN, parameters).fetchall()]
