"""The pure decision of a reschedule: where another time brings a delivery that is held."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from notify_tasks.choices import Choices
from notify_tasks.planning import held_up
from notify_tasks.plans import EXPIRES_FIRST, SCHEDULED, Timed


@dataclass(frozen=True, slots=True)
class Moved:
    """Where another time brings a delivery that is held.

    Args:
        due_at: when it goes; None where it does not.
        reason: what holds it, or why it does not go.
        expires_at: when it is worthless.
    """

    due_at: datetime | None
    reason: str
    expires_at: datetime


def move(
    timed: Timed, at: datetime, expires_at: datetime, choices: Choices, timezone: str | None, now: datetime
) -> Moved:
    """Plan the time of a held delivery anew: quiet hours and vacation are asked from the new time on.

    Args:
        timed: what its call has kept of its type.
        at: the new time, in UTC; one that has passed means now.
        expires_at: when it is worthless now.
        choices: its recipient's.
        timezone: its recipient's.
        now: the present.
    """
    start = max(at, now)
    if timed.expires_after is not None:
        expires_at = start + timedelta(seconds=timed.expires_after)
    if expires_at <= start:
        return Moved(None, EXPIRES_FIRST[SCHEDULED], expires_at)
    due, reason = start, SCHEDULED
    for gate in held_up(start, timed, choices, timezone):
        if gate.until is None:
            return Moved(None, gate.reason, expires_at)
        due, reason = gate.until, gate.reason
        if due >= expires_at:
            return Moved(None, EXPIRES_FIRST[gate.reason], expires_at)
    return Moved(due, reason, expires_at)
