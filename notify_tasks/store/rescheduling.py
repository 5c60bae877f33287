"""Rescheduling: what is still held for its time gets another one. Moved or sent, never both.

Deliveries are locked before they are looked at, as a claim and the sweep lock them: what a worker has, or what is due
already, is not moved, and the caller is told.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from notify_tasks import choices
from notify_tasks.call_times import refuse_too_late
from notify_tasks.gathering import GATHERED, THROTTLED
from notify_tasks.local_time import LocalTime
from notify_tasks.moving import move
from notify_tasks.notification import Notification
from notify_tasks.plans import QUIET_HOURS, SCHEDULED, STEP, VACATION, Timed
from notify_tasks.store.database import Connection, Database, Row, jsonb
from notify_tasks.store.statuses import shortened

Where = Literal["deliveries", "intake", "being_planned", "cancelled", "rejected", "unknown"]

MOVABLE: Final = (SCHEDULED, VACATION, QUIET_HOURS)
"""What may hold a delivery that has a time: itself, or its person's wishes from then on."""
OF_OTHERS: Final = (GATHERED, STEP, THROTTLED)
"""What holds a delivery whose time is not the call's."""

_SHOWN: Final = "%Y-%m-%d %H:%M:%S UTC"


@dataclass(frozen=True, slots=True)
class MovedDelivery:
    """What became of one delivery.

    Args:
        recipient_id: None for a bare address.
        address: shortened.
        state: where it is now.
        moved: whether it got the new time.
        stays: it waits as before: for something else than its time, or since it would be worthless by the new one.
        before: when it would have gone; None where it was not held for a time.
        due_at: when it goes now.
        expires_at: when it is worthless now.
        reason: what holds it now; of one that was not moved, why not.
    """

    id: uuid.UUID
    recipient_id: str | None
    channel: str
    address: str
    state: str
    moved: bool
    stays: bool
    before: datetime | None
    due_at: datetime | None
    expires_at: datetime | None
    reason: str | None

    @property
    def too_late(self) -> bool:
        """Whether it had been sent, was being sent, was due already, or had ended otherwise."""
        return not self.moved and not self.stays


@dataclass(frozen=True, slots=True)
class Rescheduled:
    """What a reschedule did.

    Args:
        where: what was found of the call: its `deliveries`; a row of the table `intake`, which has the new time now
            and is planned with it; a row that is `being_planned` at this moment, and was left alone; `cancelled` or
            `rejected`; or `unknown`: no worker has seen it.
        deliveries: each delivery of the call.
    """

    message_id: str
    where: Where
    deliveries: tuple[MovedDelivery, ...] = ()

    @property
    def moved(self) -> int:
        """How many deliveries have the new time."""
        return sum(it.moved for it in self.deliveries)

    @property
    def too_late(self) -> int:
        """How many could not be moved any more: sent, being sent, due already, or ended."""
        return sum(it.too_late for it in self.deliveries)

    @property
    def complete(self) -> bool:
        """Whether all of it goes at the new time, and none of it went before."""
        if self.where == "deliveries":
            return bool(self.deliveries) and all(it.moved for it in self.deliveries)
        return self.where == "intake"


_KEPT: Final = """
SELECT hash, envelope, tries FROM notify.intake WHERE tenant = %s AND message_id = %s ORDER BY hash FOR UPDATE
"""
_CHANGE: Final = """
UPDATE notify.intake SET envelope = %s::jsonb WHERE tenant = %s AND message_id = %s AND hash = %s
"""
_KEY: Final = """
SELECT k.cancelled_at, n.id, n.state, n.plan, now() AS now
  FROM notify.message_key k LEFT JOIN notify.notification n ON n.id = k.notification_id
 WHERE k.tenant = %s AND k.message_id = %s
"""
_LOCK: Final = """
SELECT d.id, d.recipient_id, d.channel, d.address, d.timezone, d.state, d.reason, d.due_at, d.expires_at, d.unknown,
       d.replay_of, d.tenant, d.chain
  FROM notify.delivery d WHERE d.notification_id = %s ORDER BY d.id FOR UPDATE
"""
_CHOICES: Final = """
SELECT recipient_id, settings FROM notify.preference WHERE tenant = %s AND recipient_id = ANY(%s)
"""
_MOVE: Final = """
WITH x AS (
    SELECT * FROM jsonb_to_recordset(%s::jsonb) AS x(
        id uuid, due_at timestamptz, expires_at timestamptz, reason text, said text)),
d AS (
    UPDATE notify.delivery d
       SET due_at = x.due_at, expires_at = x.expires_at, reason = x.reason, updated_at = now()
      FROM x WHERE d.id = x.id AND d.state = 'held'
    RETURNING d.id, d.tenant, d.notification_id, x.said)
INSERT INTO notify.status_event (tenant, notification_id, delivery_id, kind, detail)
SELECT tenant, notification_id, id, 'rescheduled', said FROM d WHERE said IS NOT NULL
"""


def reschedule(
    database: Database, message_id: str, at: datetime | LocalTime, *, tenant: str = "default"
) -> Rescheduled:
    """Give what is still held of a call another time.

    Args:
        database: the store.
        message_id: the call's.
        at: when it is to go; what has passed means now.
        tenant: whose it is.

    Raises:
        InvalidCall: a call that is still in the table `intake` would be worthless before then.
    """
    return database.transact(lambda connection: _reschedule(connection, message_id, at, tenant))


def _reschedule(
    connection: Connection, message_id: str, at: datetime | LocalTime, tenant: str
) -> Rescheduled:
    # The table is asked first: what leaves it meanwhile is stored by then, and found by its key.
    kept = connection.execute(_KEPT, (tenant, message_id)).fetchall()
    key = connection.execute(_KEY, (tenant, message_id)).fetchone()
    if key is not None and key["cancelled_at"] is not None and key["id"] is None:
        return Rescheduled(message_id, "cancelled")
    if key is not None and key["state"] == "rejected" and not kept:
        return Rescheduled(message_id, "rejected")
    if key is not None and key["id"] is not None and key["state"] != "rejected":
        return Rescheduled(message_id, "deliveries", _move_deliveries(connection, key, at))
    if not kept:
        return Rescheduled(message_id, "unknown")
    if any(row["tries"] for row in kept):
        return Rescheduled(message_id, "being_planned")
    for row in kept:
        envelope = _later(row["envelope"], at)
        connection.execute(_CHANGE, (jsonb(envelope), tenant, message_id, row["hash"]))
    return Rescheduled(message_id, "intake")


def _later(envelope: Mapping[str, Any], at: datetime | LocalTime) -> dict[str, Any]:
    """The envelope with another time. Its hash stays: a repetition of the first call is still the same call."""
    notification = Notification.from_wire(envelope)
    local = isinstance(at, LocalTime)
    refuse_too_late(at, notification.expires, datetime.now(UTC))
    changed = replace(notification, at=None if local else at, at_local=at if local else None)  # type: ignore[arg-type]
    return changed.to_wire()


def _move_deliveries(
    connection: Connection, notification: Row, at: datetime | LocalTime
) -> tuple[MovedDelivery, ...]:
    rows = connection.execute(_LOCK, (notification["id"],)).fetchall()
    people = [row["recipient_id"] for row in rows if row["recipient_id"] is not None]
    wishes: dict[str, Any] = {}
    if people:
        found = connection.execute(_CHOICES, (rows[0]["tenant"], people)).fetchall()
        wishes = {row["recipient_id"]: row["settings"] for row in found}
    timed = notification["plan"].get("timed")
    now = notification["now"].astimezone(UTC)
    pairs = [
        (row, _moved(row, timed, at, wishes.get(row["recipient_id"]), now))
        for row in rows
        if row["replay_of"] is None
    ]
    pairs = _with_steps(pairs)
    moves = [
        {
            "id": str(answer.id),
            "due_at": answer.due_at,
            "expires_at": answer.expires_at,
            "reason": answer.reason,
            "said": answer.due_at and f"from {row['due_at']:{_SHOWN}} to {answer.due_at:{_SHOWN}}",
        }
        for row, answer in pairs
        if answer.moved
    ]
    if moves:
        connection.execute(_MOVE, (jsonb(moves),))
    return tuple(answer for _, answer in pairs)


def _with_steps(pairs: Sequence[tuple[Row, MovedDelivery]]) -> list[tuple[Row, MovedDelivery]]:
    """A later step follows the first of its recipient: it waits for that, and is worthless so much later.

    One that has no expiry yet is given it with its turn, by the first one's.
    """
    later = {
        row["chain"]: answer.expires_at - row["expires_at"]
        for row, answer in pairs
        if answer.moved and answer.expires_at and row["expires_at"] and row["chain"] is not None
    }
    return [
        (row, _follows(row, answer, later[row["chain"]]))
        if row["state"] == "held" and row["reason"] == STEP and row["chain"] in later
        else (row, answer)
        for row, answer in pairs
    ]


def _follows(row: Row, answer: MovedDelivery, later: timedelta) -> MovedDelivery:
    expires_at = row["expires_at"]
    return replace(answer, moved=True, expires_at=expires_at and expires_at + later)


def _moved(
    row: Row,
    timed: Mapping[str, Any] | None,
    at: datetime | LocalTime,
    wishes: Mapping[str, Any] | None,
    now: datetime,
) -> MovedDelivery:
    answer = MovedDelivery(
        id=row["id"],
        recipient_id=row["recipient_id"],
        channel=row["channel"],
        address=shortened(row["address"]),
        state=row["state"],
        moved=False,
        stays=row["state"] == "held" and row["reason"] in OF_OTHERS,
        before=None,
        due_at=row["due_at"],
        expires_at=row["expires_at"],
        reason=row["reason"],
    )
    # A call that an older worker has planned kept nothing of its type: what is held for its time can be moved, up to
    # its expiry.
    movable = MOVABLE if timed is not None else (SCHEDULED,)
    if row["state"] != "held" or row["reason"] not in MOVABLE or row["unknown"]:
        return answer
    if row["due_at"] is None or row["due_at"] <= now:
        return replace(answer, reason="due")
    if row["reason"] not in movable:
        return replace(answer, stays=True, before=row["due_at"])
    moment = at.instant(row["timezone"]) if isinstance(at, LocalTime) else at
    made = move(
        Timed(**timed) if timed is not None else Timed(),
        moment,
        row["expires_at"],
        choices.read(wishes),
        row["timezone"],
        now,
    )
    if made.due_at is None:
        return replace(answer, stays=True, before=row["due_at"], reason=made.reason)
    return replace(
        answer,
        moved=True,
        before=row["due_at"],
        due_at=made.due_at,
        expires_at=made.expires_at,
        reason=made.reason,
    )
